"""How long a video may keep its workers waiting, whatever hangs: for a sign of life, and in all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.errors import ConfigError, Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """silence_s: between two events. window_s: in all, for each window of the video."""

    silence_s: float = 6_000.0
    window_s: float = 14_400.0

    def __post_init__(self) -> None:
        if self.silence_s <= 0 or self.window_s <= 0:
            raise ConfigError(f"patience must be positive, got {self}")


class Deadline:
    """The end of the patience with one video, which whatever is heard of it puts off.

    Who waits for room is heard of: others are at work then. In all, that counts too.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._ends_s: dict[asyncio.Timeout, float] = {}

    def heard(self) -> None:
        """Something has happened for the video."""
        now_s = asyncio.get_running_loop().time()
        for timeout, end_s in self._ends_s.items():
            if not timeout.expired():
                timeout.reschedule(min(now_s + self._patience.silence_s, end_s))

    @asynccontextmanager
    async def kept(self, *, num_windows: int = 1) -> AsyncIterator[None]:
        """Around work on the video: Transient when the patience is at its end."""
        loop, total_s = asyncio.get_running_loop(), num_windows * self._patience.window_s
        end_s = loop.time() + total_s
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._ends_s[timeout] = end_s
                self.heard()
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            if loop.time() >= end_s:
                raise Transient(f"the video takes longer than {total_s:g} s") from error
            silence_s = self._patience.silence_s
            raise Transient(f"nothing is heard of the video for {silence_s:g} s") from error
        finally:
            self._ends_s.pop(timeout, None)
