"""Who is served next by an engine: words before video, of videos the nearest to its end, and what
yields after all others.

Plain Python; the engine only feeds it and carries out what it decides.
"""

from dataclasses import dataclass, field

from pipeline.engine.commands import Step
from pipeline.engine.ids import StreamId
from pipeline.engine.lane import Lane
from pipeline.stages.order import LeastLeftFirst
from pipeline.types import TokenChunk
from pipeline.video.windows import CHUNK_TOKENS

# Video tokens in one step. A full chunk keeps an engine busy alone; more only keep words waiting.
MAX_PREFILL_TOKENS = CHUNK_TOKENS


@dataclass(slots=True)
class Scheduler:
    """Chooses from the lanes of all open streams.

    lanes: the one that was served longest ago comes first. gap_s: while other streams are on their
    way, a step of words alone begins no sooner after the step before began: more answers share one,
    and the stages before have the cores meanwhile.
    """

    gap_s: float = 0.0
    lanes: dict[StreamId, Lane] = field(default_factory=dict)
    _order: LeastLeftFirst = field(default_factory=LeastLeftFirst)
    _waits_until_s: float = 0.0

    @property
    def num_chunks(self) -> int:
        """Chunks that wait."""
        return sum(len(lane.chunks) for lane in self.lanes.values())

    @property
    def has_work(self) -> bool:
        """Whether any step could be made."""
        return any(lane.next_chunk or lane.running for lane in self.lanes.values())

    def hurry(self) -> None:
        """An answer begins: its first word is due at once, and so is the next one of all others."""
        self._waits_until_s = 0.0

    def words_wait_s(self, *, now_s: float) -> float:
        """For how long the next words wait for company."""
        num_answering = sum(bool(lane.running) for lane in self.lanes.values())
        return self._waits_until_s - now_s if 0 < num_answering < len(self.lanes) else 0.0

    def next_step(self, *, now_s: float) -> Step:
        """Take what a step that begins now is to do; nothing while words wait for company."""
        prefills = self._next_prefills()
        if not prefills and self.words_wait_s(now_s=now_s) > 0:
            return Step()
        self._waits_until_s = now_s + self.gap_s
        words = tuple(name for lane in self.lanes.values() for name in lane.running)
        return Step(prefills, words)

    def _next_prefills(self) -> tuple[tuple[StreamId, TokenChunk], ...]:
        """Take at most one chunk of each stream, in the order's turn.

        One chunk is always taken, however large; then as many as fit. A ten-second clip waits for
        a ten-hour video's chunk, never for its end.
        """
        chosen: list[tuple[StreamId, TokenChunk]] = []
        room = MAX_PREFILL_TOKENS
        left = {lane.stream: each.left for lane in self.lanes.values() if (each := lane.next_chunk)}
        for stream in self._order.sorted(
            left, left=left.__getitem__, yields=lambda stream: stream.yields
        ):
            lane = self.lanes[stream]
            waiting = lane.next_chunk
            if waiting and (not chosen or waiting.chunk.tokens.shape[0] <= room):
                room -= waiting.chunk.tokens.shape[0]
                chosen.append((stream, lane.take()))
                self.lanes[stream] = self.lanes.pop(stream)
        return tuple(chosen)
