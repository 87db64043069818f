"""Who may begin now: by the tokens that all answers need, and by how much one key asks for.

What is over is told to come back, at once; nothing waits here. A short line of what was admitted
waits in the decoder, for room. Who asks in vain is told before anything of its request is looked at
(shedding.py): whom there was no room for since an answer ended, and whoever would be one too many
if all those come in that are at the door.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.serve.refusals import Refusal

Leave = Callable[[], None]
MINUTE_S = 60.0
BUSY_RETRY_S = 2


@dataclass(slots=True, kw_only=True)
class Admittance:
    """max_tokens: of keys and values, over all that is answered or waits for room. max_running,
    per_minute: of one key.
    """

    max_tokens: int
    max_running: int
    per_minute: int
    now_s: Callable[[], float] = time.monotonic
    running: Counter[str] = field(default_factory=Counter)
    knocking: Counter[str] = field(default_factory=Counter)
    bringing: Counter[str] = field(default_factory=Counter)
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)  # when, how many
    _over: dict[str, tuple[str, str]] = field(default_factory=dict)  # code and words, by owner

    def spend(self, owner: str) -> None:
        """One request of this owner's. Refusal (429) where there were too many in a minute."""
        now_s = self.now_s()
        since_s, left = self._left.get(owner, (now_s, float(self.per_minute)))
        left = min(self.per_minute, left + (now_s - since_s) * self.per_minute / MINUTE_S)
        if left < 1:
            wait_s = (1 - left) * MINUTE_S / self.per_minute
            message = f"at most {self.per_minute} requests a minute with one key"
            raise Refusal(429, "rate_limited", message, retry_after_s=math.ceil(wait_s))
        self._left[owner] = (now_s, left - 1)

    def enter(self, owner: str, *, num_tokens: int, held: int) -> None:
        """Begin an answer that needs so many tokens where `held` are needed already; then `leave`.

        Refusal (429) where it does not fit. One answer always does.
        """
        over = None
        if self.running[owner] >= self.max_running:
            over = self._too_many
        elif held and held + num_tokens > self.max_tokens:
            told = f"{held} tokens are being answered, of {self.max_tokens}, and {num_tokens} more"
            over = "busy", f"{told} have no room; ask again later"
        if over is not None:
            self._over[owner] = over
            raise _refusal(*over)
        self.running[owner] += 1

    def enter_again(self, owner: str) -> None:
        """Go on with an answer that an earlier desk let in; then `leave`."""
        self.running[owner] += 1

    def knock(self, owner: str) -> Leave:
        """Be at the door, until what is returned is called, before `enter` or instead of it.
        Refusal where that would be in vain.
        """
        self.require_chance(owner)
        if self.running[owner] + self.knocking[owner] >= self.max_running:
            raise _refusal(*self._too_many)
        return self._counted(self.knocking, owner)

    def bring(self, owner: str) -> Leave:
        """Upload something, until what is returned is called. Refusal where that is too much."""
        if self.bringing[owner] >= self.max_running:
            message = f"at most {self.max_running} uploads at a time with one key"
            raise _refusal("rate_limited", message)
        return self._counted(self.bringing, owner)

    def _counted(self, counts: Counter[str], owner: str) -> Leave:
        counts[owner] += 1
        is_there = True

        def leave() -> None:
            nonlocal is_there
            if is_there:
                is_there = False
                self._drop(counts, owner)

        return leave

    def require_chance(self, owner: str) -> None:
        """The Refusal that this owner got since an answer ended, if any."""
        if over := self._over.get(owner):
            raise _refusal(*over)

    def leave(self, owner: str) -> None:
        self._over.clear()
        self._drop(self.running, owner)

    @property
    def _too_many(self) -> tuple[str, str]:
        return "rate_limited", f"at most {self.max_running} answers at a time with one key"

    @staticmethod
    def _drop(counts: Counter[str], owner: str) -> None:
        counts[owner] -= 1
        if not counts[owner]:
            del counts[owner]


def _refusal(code: str, message: str) -> Refusal:
    return Refusal(429, code, message, retry_after_s=BUSY_RETRY_S)
