"""Who is served next by a replica: words before video, of videos the nearest to its end.

Plain Python; the replica's actor only feeds it and carries out what it decides.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.engine.order import LeastLeftFirst
from pipeline.types import TokenChunk
from pipeline.video.windows import CHUNK_TOKENS

# Video tokens in one step. A full chunk keeps the replica busy alone; more only keep words waiting.
MAX_PREFILL_TOKENS = CHUNK_TOKENS


@dataclass(slots=True)
class Schedule:
    """Chunks waiting per stream, each with how many come after it, and the turns being answered.

    gap_s: while other streams are on their way, a step of words alone begins no sooner after the
    step before began: more answers share one, and the stages before have the cores meanwhile.
    """

    gap_s: float = 0.0
    waiting: dict[str, deque[tuple[TokenChunk, int]]] = field(default_factory=dict)  # in turn order
    order: LeastLeftFirst = field(default_factory=LeastLeftFirst)
    turns: list[str] = field(default_factory=list)  # ids are that of the stream, "#" and a number
    _waits_until_s: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.turns and not any(self.waiting.values())

    @property
    def num_chunks(self) -> int:
        return sum(map(len, self.waiting.values()))

    def add_chunk(self, stream_id: str, chunk: TokenChunk, *, left: int) -> None:
        self.waiting.setdefault(stream_id, deque()).append((chunk, left))

    def drop_stream(self, stream_id: str) -> None:
        self.waiting.pop(stream_id, None)

    def begin_turn(self, turn_id: str) -> None:
        """Its first word is due at once, and so is the next one of every other turn."""
        self.turns.append(turn_id)
        self._waits_until_s = 0.0

    def words_wait_s(self, *, num_streams: int, now_s: float) -> float:
        """For how long the turns' next words wait for company. num_streams: all that are open."""
        num_answering = len({turn_id.rpartition("#")[0] for turn_id in self.turns})
        return self._waits_until_s - now_s if 0 < num_answering < num_streams else 0.0

    def next_turns(self, *, now_s: float) -> tuple[str, ...]:
        """All turns, for a step that begins now."""
        self._waits_until_s = now_s + self.gap_s
        return tuple(self.turns)

    def next_prefills(self) -> tuple[tuple[str, TokenChunk], ...]:
        """Take at most one chunk of each stream, in the order's turn.

        One chunk is always taken, however large; then as many as fit. A ten-second clip waits for
        a ten-hour video's chunk, never for its end.
        """
        chosen: list[tuple[str, TokenChunk]] = []
        room = MAX_PREFILL_TOKENS
        ready = [stream_id for stream_id, chunks in self.waiting.items() if chunks]
        for stream_id in self.order.sorted(ready, left=lambda name: self.waiting[name][0][1]):
            chunks = self.waiting[stream_id]
            if not chosen or chunks[0][0].tokens.shape[0] <= room:
                chunk, _ = chunks.popleft()
                room -= chunk.tokens.shape[0]
                chosen.append((stream_id, chunk))
                self.waiting[stream_id] = self.waiting.pop(stream_id)
        return tuple(chosen)
