"""An open stream: a prompt's media flow in chunk by chunk, then questions are asked of it."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from pipeline.engine.generation import Generation
from pipeline.engine.layout import PromptWindow, lay_out
from pipeline.engine.question import Question
from pipeline.engine.step import Addition
from pipeline.engine.writing import Writing
from pipeline.errors import BadInput, FailureCode, StreamError, Transient
from pipeline.types import TokenChunk


class Stream:
    """The keys and values of a prompt's media, and the answers being written on them.

    Nothing a question adds outlives its answer: every one starts at the end of the media.
    question_tokens: of all questions being answered at one time.
    """

    def __init__(
        self, writing: Writing, *, media: Sequence[PromptWindow], question_tokens: int
    ) -> None:
        self._writing = writing
        self._question_tokens = question_tokens
        self._layout = lay_out(media)
        self._ends = list(accumulate(entry.num_tokens for entry in self._layout.entries))
        num_tokens = self._ends[-1] if self._ends else 0
        self._cache = writing.language.new_cache(num_tokens)
        self._prompt_ids = [token for medium in media for token in medium.ids_before]
        if media:
            self._prompt_ids.append(writing.language.config.video_pad_id)
        self.generations: dict[int, Generation] = {}
        self.num_reserved = num_tokens + question_tokens

    @property
    def num_prefilled(self) -> int:
        """Chunks taken so far."""
        return bisect_right(self._ends, self._cache.length)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has been taken, so that questions can be asked."""
        return self.num_prefilled == len(self._layout.entries)

    def addition(self, chunk: TokenChunk) -> Addition:
        """What a step has to run to take the next chunk; the chunk counts as taken after it.

        StreamError for any other chunk, whichever it is.
        """
        if self.is_complete:
            raise StreamError(f"chunk {chunk.index} of window {chunk.window_index}: had them all")
        entry = self._layout.entries[self.num_prefilled]
        entry.require(chunk, hidden_size=self._writing.language.config.hidden_size)
        return Addition(self._cache, entry.ids_before, entry.positions, chunk.tokens)

    def begin(self, number: int, question: Question, *, is_alone: bool = False) -> None:
        """Start to answer, as generation `number`; `end` it when it has a completion.

        is_alone: no other question will share the reading of the media's keys and values, so it
        gets a copy of them if there is room: to read one piece is faster than to join two.
        BadInput if the question could never be answered, Transient while others hold the room.
        """
        if not self.is_complete:
            missing = len(self._layout.entries) - self.num_prefilled
            raise StreamError(f"a question came before the last {missing} chunks")
        num_free = self._require_room(question)
        num_reserved, new_cache = question.max_tokens, self._cache.fork
        if is_alone and self._cache.length + question.max_tokens <= num_free:
            num_reserved, new_cache = self._cache.length + question.max_tokens, self._cache.copy
        self.generations[number] = Generation(
            self._writing,
            question,
            prompt_ids=self._prompt_ids,
            position=self._layout.next_position,
            num_reserved=num_reserved,
            new_cache=partial(new_cache, capacity=question.max_tokens),
        )

    def end(self, number: int) -> None:
        """Free what a generation holds, finished or not; unknown ones are fine."""
        self.generations.pop(number, None)

    def _require_room(self, question: Question) -> int:
        """The tokens that are free before it begins."""
        needed, limit = question.max_tokens, self._question_tokens
        if needed > limit:
            raise BadInput(
                FailureCode.PROMPT_TOO_LONG,
                f"question and answer need {needed} tokens; limit {limit}",
            )
        last = self._layout.next_position + needed
        limit = self._writing.language.config.max_positions
        if last > limit:
            raise BadInput(
                FailureCode.PROMPT_TOO_LONG,
                f"the answer could reach position {last}; limit {limit}",
            )
        held = sum(each.num_reserved for each in self.generations.values())
        num_free = self._question_tokens - held
        if needed > num_free:
            raise Transient(f"question and answer need {needed} tokens; {num_free} are free")
        return num_free
