"""An open stream: a prompt's media flow in chunk by chunk, then questions are asked of it."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from pipeline.engine.answer import Answer, Question, Writers
from pipeline.engine.generation import Turn
from pipeline.engine.layout import PromptWindow, lay_out
from pipeline.engine.step import Addition, embed, step
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.model.language import LanguageModel
from pipeline.types import TokenChunk


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer; `result` comes with the last one."""

    question_index: int
    text: str
    result: Answer | BadInput | None


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same texts and results, one piece for each question."""
    whole: dict[int, Piece] = {}
    for piece in pieces:
        index = piece.question_index
        text = whole[index].text + piece.text if index in whole else piece.text
        whole[index] = Piece(index, text, piece.result)
    return list(whole.values())


class Stream:
    """The keys and values of a prompt's media, and the questions being answered on them.

    Nothing a question adds outlives its answer: every one starts at the end of the media.
    """

    def __init__(
        self,
        language: LanguageModel,
        writers: Writers,
        *,
        media: Sequence[PromptWindow],
        question_tokens: int,
        on_close: Callable[[], None],
    ) -> None:
        self._language = language
        self._writers = writers
        self._question_tokens = question_tokens
        self._on_close = on_close
        self._layout = lay_out(media)
        self._ends = list(accumulate(entry.num_tokens for entry in self._layout.entries))
        self._cache = language.new_cache(self._ends[-1] if self._ends else 0)
        self._prompt_ids = [token for medium in media for token in medium.ids_before]
        if media:
            self._prompt_ids.append(language.config.video_pad_id)
        self._turns: list[Turn] = []
        self._is_open = True

    @property
    def num_prefilled(self) -> int:
        """Chunks taken so far."""
        return bisect_right(self._ends, self._cache.length)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has been taken, so that questions can be asked."""
        return self.num_prefilled == len(self._layout.entries)

    def prefill(self, chunk: TokenChunk) -> None:
        """Take the next chunk; StreamError for any other, whichever it is."""
        step(self._language, [self.addition(chunk)])

    @torch.inference_mode()
    def addition(self, chunk: TokenChunk) -> Addition:
        """What a step has to run to take the next chunk; the chunk counts as taken after it."""
        self._require_open()
        if self.is_complete:
            raise StreamError(f"chunk {chunk.index} of window {chunk.window_index}: had them all")
        entry = self._layout.entries[self.num_prefilled]
        key = (chunk.plan_hash, chunk.window_index, chunk.index)
        if key != entry.key:
            raise StreamError(f"expected (plan, window, chunk) {entry.key}, got {key}")
        expected = (entry.num_video_tokens, self._language.config.hidden_size)
        if chunk.tokens.shape != expected:
            raise StreamError(f"chunk needs tokens {expected}, got {tuple(chunk.tokens.shape)}")
        before = embed(self._language, entry.ids_before)
        embeddings = torch.cat((before, chunk.tokens.to(before)))
        return Addition(self._cache, embeddings, entry.positions.to(before.device))

    def begin(self, question: Question, *, is_alone: bool = False) -> Turn:
        """Start to answer; whoever runs the steps calls `end` when there is a result.

        is_alone: no other question will share the reading of the media's keys and values, so it
        gets a copy of them if there is room: to read one piece is faster than to join two.
        BadInput if the question could never be answered, Transient while others hold the room.
        """
        self._require_open()
        if not self.is_complete:
            missing = len(self._layout.entries) - self.num_prefilled
            raise StreamError(f"a question came before the last {missing} chunks")
        num_free = self._require_room(question)
        writer = self._writers.start(question, prompt_ids=self._prompt_ids)
        new_cache = self._cache.fork
        if is_alone and self._cache.length + question.max_tokens <= num_free:
            new_cache = self._cache.copy
        cache = new_cache(capacity=question.max_tokens)
        turn = Turn(self._language, writer, cache=cache, position=self._layout.next_position)
        self._turns.append(turn)
        return turn

    def end(self, turn: Turn) -> None:
        """Free what a turn of this stream holds, finished or not."""
        self._turns.remove(turn)

    def write(self, questions: Sequence[Question]) -> Generator[Piece]:
        """Answer all questions as one batch, yielding text of any of them as it becomes certain.

        Questions beyond the stream's room wait for others to finish. A failure is its question's.
        """
        waiting, running = deque(enumerate(questions)), dict[Turn, int]()
        is_alone = len(questions) == 1
        try:
            while waiting or running:
                yield from self._admit(waiting, running, is_alone=is_alone)
                if not running:
                    return
                chosen = step(self._language, [turn.addition() for turn in running])
                for (turn, index), token in zip(tuple(running.items()), chosen, strict=True):
                    text = turn.accept(token)
                    if turn.result is not None:
                        del running[turn]
                        self.end(turn)
                    yield Piece(index, text, turn.result)
        finally:
            for turn in running:
                self.end(turn)

    def ask(self, question: Question) -> "Reply":
        """The answer as it is written."""
        return Reply(self.write([question]))

    def ask_many(self, questions: Sequence[Question]) -> list[Answer | BadInput]:
        """All answers, in the order of the questions; each is what `ask` alone would give."""
        pieces = self.write(questions)
        results = {piece.question_index: piece.result for piece in pieces if piece.result}
        return [results[index] for index in range(len(questions))]

    def close(self) -> None:
        """Free everything; twice is once."""
        if self._is_open:
            self._is_open = False
            self._turns.clear()
            del self._cache
            self._on_close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _admit(
        self, waiting: deque[tuple[int, Question]], running: dict[Turn, int], *, is_alone: bool
    ) -> Iterator[Piece]:
        """Begin as many questions as there is room for; yields those that never can."""
        while waiting:
            index, question = waiting[0]
            try:
                running[self.begin(question, is_alone=is_alone)] = index
            except Transient:
                if not running:
                    raise
                return
            except BadInput as error:
                yield Piece(index, "", error)
            waiting.popleft()

    def _require_open(self) -> None:
        if not self._is_open:
            raise StreamError("the stream is closed")

    def _require_room(self, question: Question) -> int:
        """The tokens that are free before it begins."""
        needed, limit = question.max_tokens, self._question_tokens
        if needed > limit:
            raise BadInput(
                FailureCode.PROMPT_TOO_LONG,
                f"question and answer need {needed} tokens; limit {limit}",
            )
        last, limit = self._layout.next_position + needed, self._language.config.max_positions
        if last > limit:
            raise BadInput(
                FailureCode.PROMPT_TOO_LONG,
                f"the answer could reach position {last}; limit {limit}",
            )
        num_free = self._question_tokens - sum(turn.num_reserved for turn in self._turns)
        if needed > num_free:
            raise Transient(f"question and answer need {needed} tokens; {num_free} are free")
        return num_free


class Reply:
    """One answer as it is written: iterate for its text, ask for `answer` to wait for all of it."""

    def __init__(self, pieces: Generator[Piece]) -> None:
        self._pieces = pieces
        self._result: Answer | BadInput | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._result = piece.result
            if piece.text:
                yield piece.text
        if isinstance(self._result, BadInput):
            raise self._result

    def close(self) -> None:
        """Give the answer up and free what it holds."""
        self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The finished answer; raises the BadInput of one that failed."""
        for _ in self:
            pass
        if not isinstance(self._result, Answer):
            raise StreamError("the answer was given up before its end")
        return self._result
