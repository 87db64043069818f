"""One tensor-parallel rank: its shard of the language model and the streams open on it."""

from collections.abc import Collection, Iterable, Sequence

from pipeline.config import EngineLimits, Sampling
from pipeline.cores import use_threads
from pipeline.engine.admission import Admission
from pipeline.engine.commands import (
    BeginGeneration,
    CloseStream,
    Commands,
    Control,
    EndGeneration,
    OpenStream,
    Report,
    Step,
)
from pipeline.engine.generation import Generation
from pipeline.engine.ids import GenerationId, StreamId
from pipeline.engine.question import Completion, Question
from pipeline.engine.step import Addition, num_products, step
from pipeline.engine.stream import Stream
from pipeline.engine.writing import Writing
from pipeline.errors import BadInput, StreamError, Transient
from pipeline.model.arrange import arrange_for_generation
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer
from pipeline.types import TokenChunk

_NOBODY = StreamId("nobody", "", 0)
_FIRST_STEP: Commands = (
    OpenStream(_NOBODY, ()),
    BeginGeneration(
        GenerationId(_NOBODY, 0),
        Question(ids=(0,) * 16, sampling=Sampling(max_new_tokens=1)),
        is_alone=True,
    ),
    Step(generations=(GenerationId(_NOBODY, 0),)),
    CloseStream(_NOBODY),
)


class Rank:
    """Runs commands in order; its peers run the same ones at the same time.

    num_threads: of torch, at most; None leaves them alone. Small steps use one.
    """

    def __init__(
        self,
        language: LanguageModel,
        tokenizer: Tokenizer,
        *,
        eos_ids: Collection[int],
        limits: EngineLimits | None = None,
        num_threads: int | None = None,
    ) -> None:
        arrange_for_generation(language)
        self.admission = Admission(limits or EngineLimits())
        self._writing = Writing(language, tokenizer, eos_ids=eos_ids)
        self._num_threads = num_threads
        self._streams: dict[StreamId, Stream] = {}

    @property
    def streams(self) -> tuple[StreamId, ...]:
        """Of those that are open."""
        return tuple(self._streams)

    def warm_up(self) -> None:
        """Run a step that nobody asked for, together with all peers: what cannot be computed here
        is known before anybody waits for it, and kernels are chosen.
        """
        self.run(_FIRST_STEP)

    def run(self, commands: Commands) -> Report:
        """Run commands in order; at most one is a step, and its report is returned."""
        report = Report()
        for command in commands:
            if isinstance(command, Step):
                report = self._step(command)
            else:
                self.control(command)
        return report

    def control(self, command: Control) -> None:
        """Run one command that is no step: nothing that takes time. If it raises nothing changes.

        BadInput for what could never be, Transient while there is no room or no such stream.
        """
        match command:
            case OpenStream(stream, media):
                self.admission.reserve(media)
                question_tokens = self.admission.limits.question_tokens
                self._streams[stream] = Stream(
                    self._writing, media=media, question_tokens=question_tokens
                )
            case BeginGeneration(generation, question, is_alone):
                held = self._stream(generation.stream)
                held.begin(generation.number, question, is_alone=is_alone)
            case EndGeneration(generation):
                if generation.stream in self._streams:
                    self._streams[generation.stream].end(generation.number)
            case CloseStream(stream):
                if stream in self._streams:
                    self.admission.release(self._streams.pop(stream).num_reserved)

    def _stream(self, stream: StreamId) -> Stream:
        if stream not in self._streams:
            raise Transient("the decoder has no such stream: it was closed, or lost in a restart")
        return self._streams[stream]

    def _step(self, work: Step) -> Report:
        prefills, refused = self._accept_chunks(work.prefills)
        words, written = self._begin_words(work.generations)
        additions = [*prefills, *(addition for _, _, addition in words)]
        chosen = self._run(additions) if additions else []
        for (name, generation, _), token in zip(words, chosen, strict=True):
            text = generation.accept(token)
            written.append((name, text, generation.completion))
        for name, _, completion in written:
            if completion is not None:
                self._streams[name.stream].end(name.number)
        return Report(tuple(written), tuple(refused))

    def _run(self, additions: Sequence[Addition]) -> list[int | BadInput]:
        language = self._writing.language
        if self._num_threads is not None:
            use_threads(
                self._num_threads,
                num_weights=language.num_weights,
                num_products=num_products(language, additions),
            )
        return step(language, additions)

    def _begin_words(
        self, names: Iterable[GenerationId]
    ) -> tuple[
        list[tuple[GenerationId, Generation, Addition]],
        list[tuple[GenerationId, str, Completion | None]],
    ]:
        """What to run for each generation; one that cannot go on has already ended."""
        words, ended = [], []
        for name in names:
            generation = self._streams[name.stream].generations[name.number]
            try:
                words.append((name, generation, generation.addition()))
            except BadInput as error:
                ended.append((name, generation.fail(error), generation.completion))
        return words, ended

    def _accept_chunks(
        self, chunks: Iterable[tuple[StreamId, TokenChunk]]
    ) -> tuple[list[Addition], list[tuple[StreamId, StreamError | Transient]]]:
        """What to run for the chunks that fit; one that does not is its stream's error alone."""
        additions: list[Addition] = []
        refused: list[tuple[StreamId, StreamError | Transient]] = []
        for stream, chunk in chunks:
            try:
                additions.append(self._stream(stream).addition(chunk))
            except (StreamError, Transient) as error:
                refused.append((stream, error))
        return additions, refused
