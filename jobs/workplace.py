"""Where a command's videos are worked on: Ray on this machine, a running cluster, this process."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.status import Status

from actors.profile import Profile
from deploy.profiles import load_profile
from jobs.serving import ServingOptions
from pipeline.analyse import analyse
from pipeline.config import DecodeLimits, EngineLimits, Sampling
from pipeline.errors import ConfigError
from pipeline.events import Listener, ignore
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.limits import LimitOptions
from pipeline.local import LocalFlow, LocalModel
from pipeline.model.check import check_model, share_of
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.reader import Reader, require_installed
from pipeline.video.source import Source


class Analyse(Protocol):
    """A video in, its record out."""

    async def __call__(
        self, source: Source, tasks: Tasks, *, video_id: str, listener: Listener = ignore
    ) -> Record: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the workplace has to know before the first video comes. checkpoint: its folder."""

    checkpoint: Path
    options: PlanOptions
    reader: Reader = "pyav"
    int8: bool = False
    max_new_tokens: int = Sampling().max_new_tokens
    limits: LimitOptions = LimitOptions()

    def __post_init__(self) -> None:
        require_installed(self.reader)

    @property
    def question_tokens(self) -> int:
        """Room for four answers at a time, as far as a full window of video leaves any."""
        default = EngineLimits()
        most = default.max_tokens - QWEN2_VL.max_window_tokens - default.question_tokens
        return min(max(default.question_tokens, 4 * self.max_new_tokens), most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Without anything: a Ray of its own, as large as this machine.

    address: of a running cluster. profile: a name or a file; the machine's own if not given.
    """

    address: str | None = None
    profile: Path | None = None
    in_process: bool = False

    @classmethod
    def of(cls, serving: ServingOptions) -> "Workplace":
        return cls(address=serving.address, profile=serving.profile, in_process=serving.in_process)

    def limits(self, asked: LimitOptions) -> DecodeLimits:
        """What a video may cost here. ConfigError where more is asked for than the profile says."""
        profile = load_profile(self.profile) if self.profile else Profile()
        return asked.below(profile.decode_limits, profile=profile.name)

    @contextmanager
    def opened(self, recipe: Recipe, progress: Console) -> Iterator[Analyse]:
        """Ready to work; shows what is being waited for. ConfigError before anything is started."""
        limits = self.limits(recipe.limits)
        with ExitStack() as stack, progress.status("loading the model") as status:
            if self.in_process:
                ready = stack.enter_context(_this_process(recipe, limits))
            else:
                ready = stack.enter_context(
                    _fleet(recipe, limits, self._profile(recipe), self.address, status)
                )
            status.stop()
            yield ready

    def _profile(self, recipe: Recipe) -> Profile:
        profile = load_profile(self.profile) if self.profile else machine_profile()
        own = profile.decoders
        question_tokens = max(recipe.question_tokens, own.question_tokens)
        decoders = own.model_copy(
            update={"question_tokens": question_tokens, "int8": recipe.int8 or own.int8}
        )
        _ = decoders.limits  # ConfigError now, not in an actor
        return profile.model_copy(update={"decoders": decoders})


def machine_profile() -> Profile:
    """The laptop's profile, with the cores of this machine and its GPU if there is one.

    Encoder and decoder may use all cores each: whichever has more to do than the other does.
    """
    profile = Profile()
    num_threads = torch.get_num_threads()
    encoders: dict[str, float] = {"num_threads": num_threads}
    decoders: dict[str, float] = {"num_threads": num_threads}
    device: dict[str, str] = {}
    if torch.cuda.is_available():
        device = {"device": "cuda", "dtype": "bfloat16"}
        encoders |= {"num_gpus": 0.3}
        decoders |= {"num_gpus": 0.7}
    return profile.model_copy(
        update={
            "encoders": profile.encoders.model_copy(update=encoders),
            "decoders": profile.decoders.model_copy(update=decoders),
            **device,
        }
    )


@contextmanager
def _this_process(recipe: Recipe, limits: DecodeLimits) -> Iterator[Analyse]:
    model = LocalModel.load(
        recipe.checkpoint,
        limits=EngineLimits(question_tokens=recipe.question_tokens),
        device="cuda" if torch.cuda.is_available() else "cpu",
        int8=recipe.int8,
    )
    flow = LocalFlow(model, options=recipe.options, limits=limits, reader=recipe.reader)
    try:
        yield partial(analyse, flow=flow)
    finally:
        flow.close()


@contextmanager
def _fleet(
    recipe: Recipe, limits: DecodeLimits, profile: Profile, address: str | None, status: Status
) -> Iterator[Analyse]:
    _require_loadable(recipe.checkpoint, profile)
    status.update(f"joining Ray at {address}" if address else "starting Ray")
    from actors.fleet import start_fleet  # noqa: PLC0415 - Ray takes a second to import

    with start_fleet(
        recipe.checkpoint,
        options=recipe.options,
        profile=profile,
        limits=limits,
        reader=recipe.reader,
        address=address,
    ) as fleet:

        async def wait() -> None:
            async for waiting in fleet.starting():
                status.update(f"loading the model: waiting for {waiting}")

        asyncio.run(wait())
        yield fleet.analyse


def _require_loadable(checkpoint: Path, profile: Profile) -> None:
    """What an actor would stumble over, found before there is any. No weight is read."""
    report = check_model(checkpoint)
    for problem in report.problems:
        raise problem
    share = share_of(report.config, profile.decoders.tensor_parallel) if report.config else None
    if share and share.reason:
        raise ConfigError(f"profile {profile.name}: {share.reason}")
