"""The device that is asked, what it can do at most, and how long it takes for something."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Device:
    """`cuda` or `cpu`. On a CPU everything is small: it shows that the checks run."""

    name: str

    @property
    def is_gpu(self) -> bool:
        return self.name == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What is served there."""
        return torch.bfloat16 if self.is_gpu else torch.float32

    @property
    def label(self) -> str:
        return torch.cuda.get_device_name() if self.is_gpu else "cpu"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], *, rounds: int = 5) -> float:
        """Of one call, the mean of several after a first one."""
        work()
        self.wait()
        started_s = time.perf_counter()
        for _ in range(rounds):
            work()
        self.wait()
        return (time.perf_counter() - started_s) / rounds

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.is_gpu else None


def limits(device: Device) -> dict[str, float]:
    """Measured: what one card multiplies and copies at most."""
    side = 8192 if device.is_gpu else 512
    square = torch.randn(side, side, device=device.name).to(device.dtype)
    matmul_s = device.seconds(lambda: square @ square, rounds=10)
    large = torch.empty((1 << 30) if device.is_gpu else (1 << 24), dtype=torch.uint8)
    there = large.to(device.name)
    copy_s = device.seconds(there.clone)
    found = {
        "matmul TFLOP/s": 2 * side**3 / matmul_s / 1e12,
        "copy GB/s (read and write)": 2 * large.numel() / copy_s / 1e9,
    }
    if device.is_gpu:
        pinned = large.pin_memory()
        send_s = device.seconds(lambda: there.copy_(pinned, non_blocking=True))
        found["from the host GB/s"] = large.numel() / send_s / 1e9
    return found
