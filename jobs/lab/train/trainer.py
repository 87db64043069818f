"""One training run: optimiser, schedule, averaged weights, checkpoints that resume bit for bit."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jobs.lab.train.muon import Muon

Batch = TypeVar("Batch")
CHECKPOINT = "last.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSchedule:
    """Learning rate: a linear rise, then a cosine fall to a tenth over the rest of the budget."""

    num_steps: int
    warmup: int = 100
    peak: float = 1.0

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        share = min((step - self.warmup) / max(self.num_steps - self.warmup, 1), 1.0)
        return self.peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class Averaged:
    """An exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, *, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 20))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter, 1 - decay)


class Optimiser:
    """Muon for the matrices inside the blocks, AdamW for everything else."""

    def __init__(self, module: nn.Module, *, matrix_rate: float = 0.01, rate: float = 1e-3) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            inner = parameter.ndim == 2 and ("blocks." in name or "layers." in name)
            (matrices if inner else rest).append(parameter)
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if matrices:
            muon = Muon(matrices, rate=matrix_rate)
            self.parts.append((muon, matrix_rate))
        adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.parts.append((adam, rate))

    def step(self, scale: float) -> None:
        for part, rate in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * scale
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """All moments, named by part, parameter and kind; rates and the like are the code's."""
        return {
            f"{number}/{index}/{kind}": value
            for number, (part, _) in enumerate(self.parts)
            for index, moments in part.state_dict()["state"].items()
            for kind, value in moments.items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.parts]
        for name, value in tensors.items():
            number, index, kind = name.split("/")
            states[int(number)].setdefault(int(index), {})[kind] = value
        for (part, _), state in zip(self.parts, states, strict=True):
            part.load_state_dict({**part.state_dict(), "state": state})


@dataclass(slots=True)
class TrainingRun:
    """A module in training, and where its checkpoints and its log live."""

    folder: Path
    module: nn.Module
    optimiser: Optimiser
    schedule: RateSchedule
    average: Averaged
    step: int = 0
    every_s: float = 300.0
    log_every: int = 50
    is_stopping: bool = False
    _means: dict[str, float] = field(default_factory=dict)

    def train(
        self,
        batches: Iterator[Batch],
        loss_of: Callable[[Batch], tuple[Tensor, dict[str, float]]],
        on_save: Callable[["TrainingRun"], None] | None = None,
    ) -> None:
        """Step until the schedule ends; log running means, checkpoint every `every_s` seconds.

        SIGTERM ends it after the step at hand, with a checkpoint.
        """
        signal.signal(signal.SIGTERM, self._stop)
        saved_at = logged_at = time.monotonic()
        logged_step = self.step
        for batch in batches:
            if self.is_stopping or self.step >= self.schedule.num_steps:
                break
            loss, figures = loss_of(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimiser.step(self.schedule.at(self.step))
            self.average.update(self.module, self.step)
            self.step += 1
            self._note({"loss": loss.item(), **figures})
            now = time.monotonic()
            if self.step % self.log_every == 0:
                self.log(
                    {"s_per_step": (now - logged_at) / (self.step - logged_step), **self._means}
                )
                logged_at, logged_step = now, self.step
            if now - saved_at > self.every_s:
                self.save()
                if on_save:
                    on_save(self)
                saved_at = time.monotonic()
        self.save()
        if on_save:
            on_save(self)

    def _stop(self, *_: object) -> None:
        self.is_stopping = True

    def _note(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._means[name] = 0.95 * self._means.get(name, value) + 0.05 * value

    def log(self, figures: dict[str, float]) -> None:
        """Append one line to log.jsonl."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "time": time.strftime("%H:%M:%S", time.gmtime())}
        rounded = {name: round(value, 4) for name, value in figures.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({**line, **rounded}) + "\n")

    def save(self) -> None:
        """Write the checkpoint whole, then put it in place of the last one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        groups = {
            "module": self.module.state_dict(),
            "average": self.average.values,
            "optimiser": self.optimiser.tensors(),
        }
        tensors = {
            f"{group}/{name}": value.detach().clone()  # tied ones too: each name its own memory
            for group, values in groups.items()
            for name, value in values.items()
        }
        temporary = self.folder / f"{CHECKPOINT}.part"
        save_file(tensors, temporary, metadata={"step": str(self.step)})
        os.replace(temporary, self.folder / CHECKPOINT)

    def resume(self) -> bool:
        """Continue from the folder's checkpoint if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        groups: dict[str, dict[str, Tensor]] = {"module": {}, "average": {}, "optimiser": {}}
        with safe_open(path, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            for key in file.keys():  # noqa: SIM118 - not a dict
                group, _, name = key.partition("/")
                groups[group][name] = file.get_tensor(key)
        self.module.load_state_dict(groups["module"])
        self.average.values = groups["average"]
        self.optimiser.load_tensors(groups["optimiser"])
        return True


def new_run(learner: nn.Module, folder: Path, *, num_steps: int, peak: float = 1.0) -> TrainingRun:
    """A run of this learner, resumed if the folder has one. peak: of the learning rate's scale."""
    schedule = RateSchedule(num_steps=num_steps, peak=peak)
    run = TrainingRun(folder, learner, Optimiser(learner), schedule, Averaged(learner))
    run.resume()
    return run


@torch.no_grad()
def load_averaged(learner: nn.Module, folder: Path) -> None:
    """Put the averaged weights of the folder's run into the learner."""
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        for name, parameter in learner.named_parameters():
            parameter.copy_(file.get_tensor(f"average/{name}"))
