"""Where a command's videos are worked on: Ray on this machine, a running cluster, this process.

torch is loaded by whoever opens it: what is made for others to work on (a plan, a tick of ingest)
is made in little time and memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from actors.profile import Profile
from deploy.profiles import load_profile
from jobs.exits import run_until_stopped
from jobs.serving import ServingOptions
from pipeline.config import DecodeLimits, EngineLimits, Numerics, Sampling
from pipeline.errors import BadInput, ConfigError
from pipeline.events import Listener, ignore
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.limits import LimitOptions
from pipeline.task_check import TaskCheck
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.libraries import Reader, require_installed
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

if TYPE_CHECKING:
    from actors.fleet import Fleet
    from jobs.serve.local_host import LocalHost

# Of NVIDIA's driver, AMD's, and Windows' under WSL: without any of them there is no GPU for torch.
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


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

    address: of a running cluster. profile: a name or a file; the machine's own if not given. fleet:
    whose actors are shared there.
    """

    address: str | None = None
    profile: Path | None = None
    fleet: str | None = None
    in_process: bool = False

    @classmethod
    def of(cls, serving: ServingOptions) -> "Workplace":
        return cls(
            address=serving.address,
            profile=serving.profile,
            fleet=serving.fleet,
            in_process=serving.in_process,
        )

    def limits(self, asked: LimitOptions) -> DecodeLimits:
        """What a video may cost here. ConfigError where more is asked for than the profile says."""
        profile = self._named_profile
        return asked.below(profile.decode_limits, profile=profile.name)

    def numerics(self, *, int8: bool) -> Numerics:
        """In what the model computes here; the profile may want int8 too."""
        if self.in_process:
            return Numerics.on(device_here(), int8=int8)
        profile = load_profile(self.profile) if self.profile else _on(device_here())
        return profile.rounding(int8=int8).numerics

    @property
    def kv_tokens(self) -> int:
        """What all decoders together may keep keys and values of."""
        pool = self._named_profile.decoders
        return pool.kv_tokens * pool.num_replicas

    def task_check(self, recipe: Recipe) -> TaskCheck:
        """Finds what is wrong with tasks. ConfigError for a model folder, a profile, likewise."""
        return TaskCheck(recipe.checkpoint, self.engine_limits(recipe))

    def engine_limits(self, recipe: Recipe) -> EngineLimits:
        """What one answer, one window may take here. ConfigError for a profile that cannot be."""
        if self.in_process:
            return EngineLimits(question_tokens=recipe.question_tokens)
        return self._with_room(recipe, self._named_profile).decoders.limits

    @contextmanager
    def opened(
        self, recipe: Recipe, progress: Console, *, canary: Path | None = None
    ) -> Iterator[Analyse]:
        """Ready to work; shows what is being waited for. ConfigError before anything is started.

        canary: a file that every reader has to see; SourceAway names who does not.
        """
        from jobs.opening import LocalFlow, analyse, started  # noqa: PLC0415 - torch takes seconds

        with started(self, recipe, progress) as place:
            if isinstance(place, LocalFlow):
                yield partial(analyse, flow=place)
                return
            if canary is not None:
                run_until_stopped(place.require_seen(canary))
            yield place.analyse

    @contextmanager
    def opened_for_sessions(
        self, recipe: Recipe, progress: Console
    ) -> "Iterator[LocalHost | Fleet]":
        """The same for videos that stay open."""
        from jobs.opening import LocalFlow, LocalHost, started  # noqa: PLC0415 - likewise

        with started(self, recipe, progress) as place:
            yield LocalHost(place) if isinstance(place, LocalFlow) else place

    def profile_for(self, recipe: Recipe) -> Profile:
        """What actors are started by; the machine's own if none is named."""
        return self._with_room(
            recipe, load_profile(self.profile) if self.profile else machine_profile()
        )

    @property
    def _named_profile(self) -> Profile:
        return load_profile(self.profile) if self.profile else Profile()

    def _with_room(self, recipe: Recipe, profile: Profile) -> Profile:
        profile = profile.rounding(int8=recipe.int8)
        question_tokens = max(recipe.question_tokens, profile.decoders.question_tokens)
        decoders = profile.decoders.model_copy(update={"question_tokens": question_tokens})
        if question_tokens > decoders.kv_tokens:  # now, not in an actor
            raise ConfigError(
                f"answers of {recipe.max_new_tokens} tokens need {question_tokens} of the decoder; "
                f"kv_tokens of profile {profile.name} is {decoders.kv_tokens}"
            )
        return profile.model_copy(update={"decoders": decoders})


def require_doable(tasks: Tasks, check: TaskCheck) -> None:
    """ConfigError for what would fail on every video alike."""
    try:
        check.require(tasks)
    except BadInput as error:
        raise ConfigError(error.detail) from error


def device_here() -> str:
    """Its kind; torch is asked, and loaded, only where there may be another one than cpu."""
    if not any(file.exists() for file in GPU_FILES):
        return "cpu"
    import torch  # noqa: PLC0415 - takes seconds to import

    return "cuda" if torch.cuda.is_available() else "cpu"


def _on(device: str) -> Profile:
    """The laptop's profile on another device."""
    numerics = Numerics.on(device)
    update = {"device": device, "dtype": numerics.dtype} if device != "cpu" else {}
    return Profile().model_copy(update=update)


def machine_profile() -> Profile:
    """The laptop's profile, with the cores of this machine and its GPU if there is one.

    Encoder and decoder may use all cores each: whichever has more to do than the other does.
    """
    import torch  # noqa: PLC0415 - likewise

    profile = _on(device_here())
    num_threads = torch.get_num_threads()
    encoders: dict[str, float] = {"num_threads": num_threads}
    decoders: dict[str, float] = {"num_threads": num_threads}
    if profile.device == "cuda":
        encoders |= {"num_gpus": 0.3}
        decoders |= {"num_gpus": 0.7}
    return profile.model_copy(
        update={
            "encoders": profile.encoders.model_copy(update=encoders),
            "decoders": profile.decoders.model_copy(update=decoders),
        }
    )
