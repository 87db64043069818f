"""When and where a stage worked on something: what timelines, rates and counters are made of.

Clocks: times are of the monotonic clock, which all processes of one machine share, so that their
spans compare exactly. Between machines they compare as well as the machines agree on the time of
day, since every process says when its clock was at zero.
"""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stage = Literal["plan", "read", "encode", "prefill", "generate"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that works. epoch_s: the Unix time at which its monotonic clock was at 0."""

    name: str
    process_id: int
    machine: str
    epoch_s: float

    @classmethod
    def here(cls, name: str) -> "Process":
        return cls(name, os.getpid(), _machine(), time.time() - time.monotonic())

    def span(
        self,
        stage: Stage,
        started_s: float,
        *,
        num_frames: int = 0,
        num_tokens: int = 0,
        num_bytes: int = 0,
        kv_share: float | None = None,
    ) -> "Span":
        """Work of this process that ends now."""
        return Span(
            stage=stage,
            process=self,
            started_s=started_s,
            ended_s=time.monotonic(),
            num_frames=num_frames,
            num_tokens=num_tokens,
            num_bytes=num_bytes,
            kv_share=kv_share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stage at work, without its waiting for others, and what came out of it.

    started_s, ended_s: on the monotonic clock of the process. num_bytes: as they travel on.
    kv_share: of the decoder's token budget, what open streams held at the end; None elsewhere.
    """

    stage: Stage
    process: Process
    started_s: float
    ended_s: float
    num_frames: int = 0
    num_tokens: int = 0
    num_bytes: int = 0
    kv_share: float | None = None

    @property
    def duration_s(self) -> float:
        return self.ended_s - self.started_s

    @property
    def started_unix_s(self) -> float:
        return self.started_s + self.process.epoch_s

    @property
    def ended_unix_s(self) -> float:
        return self.ended_s + self.process.epoch_s


def _machine() -> str:
    """The same for all processes that share a monotonic clock, containers included."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()
