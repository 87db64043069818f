"""A workplace, opened: the model is loaded, or the actors that hold it are started."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

from actors.profile import Profile
from jobs.exits import LAST_S, Exit, end_within, run_until_stopped
from jobs.serve.local_host import LocalHost
from jobs.workplace import Recipe, Workplace, device_here
from pipeline.analyse import analyse
from pipeline.config import DecodeLimits, EngineLimits
from pipeline.errors import ConfigError
from pipeline.local import LocalFlow, LocalModel
from pipeline.model.check import check_model, share_of
from pipeline.video.confinement import MEASURES, hide_process

if TYPE_CHECKING:
    from actors.fleet import Fleet

__all__ = ["LocalFlow", "LocalHost", "analyse", "started"]


@contextmanager
def started(
    workplace: Workplace, recipe: Recipe, progress: Console
) -> "Iterator[LocalFlow | Fleet]":
    """Ready to work; shows what is being waited for."""
    limits = workplace.limits(recipe.limits)
    with ExitStack() as stack, progress.status("loading the model") as status:
        place: LocalFlow | Fleet
        if workplace.in_process:
            place = stack.enter_context(_this_process(recipe, limits))
        else:
            place = stack.enter_context(_fleet(workplace, recipe, limits, status))
        held = run_until_stopped(place.sandbox())
        status.stop()
        if missing := [measure for measure in MEASURES if measure not in held]:
            progress.print(f"Decoders of videos are held without {', '.join(missing)} here")
        yield place


@contextmanager
def _this_process(recipe: Recipe, limits: DecodeLimits) -> Iterator[LocalFlow]:
    hide_process()
    model = LocalModel.load(
        recipe.checkpoint,
        limits=EngineLimits(question_tokens=recipe.question_tokens),
        device=device_here(),
        int8=recipe.int8,
    )
    flow = LocalFlow(model, options=recipe.options, limits=limits, reader=recipe.reader)
    try:
        yield flow
    finally:
        if flow.hangs:  # Python would wait for its threads
            end_within(LAST_S, Exit.FAILED)
        flow.close()


@contextmanager
def _fleet(
    workplace: Workplace, recipe: Recipe, limits: DecodeLimits, status: Status
) -> "Iterator[Fleet]":
    profile, address = workplace.profile_for(recipe), workplace.address
    _require_loadable(recipe.checkpoint, profile)
    status.update(Text(f"joining Ray at {address}" if address else "starting Ray"))
    from actors.launch import start_fleet  # noqa: PLC0415 - Ray takes a second to import

    with start_fleet(
        recipe.checkpoint,
        options=recipe.options,
        profile=profile,
        limits=limits,
        reader=recipe.reader,
        address=address,
        name=workplace.fleet,
    ) as fleet:

        async def wait() -> None:
            async for waiting in fleet.starting():
                status.update(Text(f"loading the model: waiting for {waiting}"))

        run_until_stopped(wait())
        yield fleet


def _require_loadable(checkpoint: Path, profile: Profile) -> None:
    """What an actor would stumble over, found before there is any. No weight is read."""
    report = check_model(checkpoint)
    for problem in report.problems:
        raise problem
    share = share_of(report.config, profile.decoders.tensor_parallel) if report.config else None
    if share and share.reason:
        raise ConfigError(f"profile {profile.name}: {share.reason}")
