"""Who is served next by a replica: fair between streams, words before video, urgent before patient.

Plain Python; the replica's actor only feeds it and carries out what it decides.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.types import TokenChunk

MAX_PREFILL_TOKENS = 2048  # video tokens in one step: bounds how long a step keeps words waiting


@dataclass(slots=True)
class Schedule:
    """Chunks waiting per stream, and the turns being answered."""

    waiting: dict[str, deque[TokenChunk]] = field(default_factory=dict)  # in turn order
    turns: list[str] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return not self.turns and not any(self.waiting.values())

    @property
    def num_chunks(self) -> int:
        return sum(map(len, self.waiting.values()))

    def add_chunk(self, stream_id: str, chunk: TokenChunk) -> None:
        self.waiting.setdefault(stream_id, deque()).append(chunk)

    def drop_stream(self, stream_id: str) -> None:
        self.waiting.pop(stream_id, None)

    def next_prefills(self) -> tuple[tuple[str, TokenChunk], ...]:
        """Take at most one chunk of each stream, the longest-waiting streams first.

        One chunk is always taken, however large; then as many as fit. Streams that were served go
        to the back, so a ten-hour video waits for a ten-second clip's chunk, never for its end.
        """
        chosen: list[tuple[str, TokenChunk]] = []
        room = MAX_PREFILL_TOKENS
        for stream_id in list(self.waiting):
            chunks = self.waiting[stream_id]
            if chunks and (not chosen or chunks[0].tokens.shape[0] <= room):
                chunk = chunks.popleft()
                room -= chunk.tokens.shape[0]
                chosen.append((stream_id, chunk))
                self.waiting[stream_id] = self.waiting.pop(stream_id)
        return tuple(chosen)
