"""One tensor-parallel rank: its shard of the language model and the streams open on it.

No Ray in here: a rank is driven by commands, so tests can run it in one process.
"""

from collections.abc import Collection, Iterable, Sequence

from pipeline.config import EngineLimits
from pipeline.cores import use_threads
from pipeline.engine.admission import Engine
from pipeline.engine.commands import (
    BeginTurn,
    CloseStream,
    Commands,
    Control,
    EndTurn,
    OpenStream,
    Progress,
    Report,
    Step,
)
from pipeline.engine.generation import Turn
from pipeline.engine.step import Addition, num_products, step
from pipeline.engine.stream import Stream
from pipeline.errors import BadInput, StreamError, Transient
from pipeline.model.language import LanguageModel
from pipeline.model.tokenizer import Tokenizer
from pipeline.types import TokenChunk


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
        limits: EngineLimits,
        num_threads: int | None = None,
    ) -> None:
        self._language = language
        self._num_threads = num_threads
        self._engine = Engine(language, tokenizer, eos_ids=eos_ids, limits=limits)
        self._streams: dict[str, Stream] = {}
        self._turns: dict[str, tuple[Stream, Turn]] = {}

    @property
    def num_free_tokens(self) -> int:
        """Tokens of the KV budget that no open stream holds."""
        return self._engine.num_free_tokens

    @property
    def kv_share(self) -> float:
        """Of the KV budget, what open streams hold."""
        return self._engine.kv_share

    @property
    def stream_ids(self) -> tuple[str, ...]:
        return tuple(self._streams)

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
        """Run one command that is no step; it changes nothing if it raises."""
        match command:
            case OpenStream(stream_id, media):
                self._streams[stream_id] = self._engine.open(media)
            case BeginTurn(turn_id, stream_id, question, is_alone):
                stream = self._stream(stream_id)
                self._turns[turn_id] = (stream, stream.begin(question, is_alone=is_alone))
            case EndTurn(turn_id):
                if turn_id in self._turns:  # else it ended by itself, just before
                    stream, turn = self._turns.pop(turn_id)
                    stream.end(turn)
            case CloseStream(stream_id):
                if stream_id in self._streams:
                    self._close(self._streams.pop(stream_id))

    def _stream(self, stream_id: str) -> Stream:
        if stream_id not in self._streams:
            raise Transient("the replica has no such stream: it was closed, or lost in a restart")
        return self._streams[stream_id]

    def _close(self, stream: Stream) -> None:
        self._turns = {key: held for key, held in self._turns.items() if held[0] is not stream}
        stream.close()

    def _step(self, work: Step) -> Report:
        prefills, refused = self._accept_chunks(work.prefills)
        turns = [self._turns[key][1] for key in work.turns]
        additions = [*prefills, *(turn.addition() for turn in turns)]
        chosen = self._run(additions) if additions else []
        progress = []
        for key, turn, token in zip(work.turns, turns, chosen, strict=True):
            text = turn.accept(token)
            progress.append(Progress(key, text, turn.result))
            if turn.result is not None:
                self.control(EndTurn(key))
        return Report(tuple(progress), tuple(refused))

    def _run(self, additions: Sequence[Addition]) -> list[int | BadInput]:
        if self._num_threads is not None:
            use_threads(
                self._num_threads,
                num_weights=self._language.num_weights,
                num_products=num_products(self._language, additions),
            )
        return step(self._language, additions)

    def _accept_chunks(
        self, chunks: Iterable[tuple[str, TokenChunk]]
    ) -> tuple[list[Addition], list[tuple[str, StreamError | Transient]]]:
        """What to run for the chunks that fit; one that does not is its stream's error alone."""
        additions: list[Addition] = []
        refused: list[tuple[str, StreamError | Transient]] = []
        for stream_id, chunk in chunks:
            try:
                additions.append(self._stream(stream_id).addition(chunk))
            except (StreamError, Transient) as error:
                refused.append((stream_id, error))
        return additions, refused
