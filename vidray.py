"""vidray for programs: videos in, records and answers out.

Everything a program needs has its name here; whatever else is imported may change without notice.
`open_local` works in this process, `open_fleet` over Ray actors. Both give the same `Videos`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from jobs.models import find_model
from pipeline import errors
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.errors import BadInput, FailureCode, Transient, VidrayError
from pipeline.events import Event, Listener, Moved, Planned, Words, ignore
from pipeline.local import LocalFlow, LocalModel
from pipeline.reply import Reply
from pipeline.session import Session as LocalSession
from pipeline.store.items import Item
from pipeline.tasks.records import Answer, Box, Caption, Record, to_json
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.types import MediaInfo, SamplingPlan
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

if TYPE_CHECKING:
    from actors.fleet import Fleet
    from actors.profile import Profile

__all__ = [
    "Answer",
    "Ask",
    "BadInput",
    "Box",
    "Caption",
    "Event",
    "FailureCode",
    "Ground",
    "Moved",
    "PlanOptions",
    "Planned",
    "Record",
    "Reply",
    "Sampling",
    "Session",
    "Source",
    "Tasks",
    "Transient",
    "VidrayError",
    "Videos",
    "Words",
    "errors",
    "open_fleet",
    "open_local",
    "to_json",
]

AnySource = Source | str | os.PathLike[str]


class Session(Protocol):
    """An open video. Use as `async with`; then `media` and `plan` are known."""

    @property
    def media(self) -> MediaInfo:
        """What the header says of the video."""

    @property
    def plan(self) -> SamplingPlan:
        """What of it the model looks at."""

    async def ask(
        self,
        questions: Sequence[Ask | str],
        *,
        sampling: Sampling | None = None,
        after: Reply | None = None,
        listener: Listener = ignore,
    ) -> list[Reply]:
        """Answer all questions, of the whole video; after: the answer that they follow up."""

    async def ground(
        self,
        query: str,
        *,
        times_s: Sequence[float] = (),
        sampling: Sampling | None = None,
        listener: Listener = ignore,
    ) -> tuple[Box, ...]:
        """Where something is in the frames shown at these times; without any, half-way through."""

    async def close(self) -> None:
        """Free everything; twice is once."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Videos(Protocol):
    """Where videos are analysed, and opened to be asked."""

    async def analyse(
        self, source: AnySource, tasks: Tasks | None = None, *, listener: Listener = ignore
    ) -> Record:
        """Do all tasks on one video: a caption if none are given.

        The video's own faults make a failed record, with its code; Transient if losses do not end.
        """

    def session(self, source: AnySource) -> Session:
        """The video, to be asked as often as wanted. BadInput for its own fault when it opens."""


@contextmanager
def open_local(
    model: str | os.PathLike[str], *, options: PlanOptions | None = None, int8: bool = False
) -> Iterator[Videos]:
    """A model in this process: its folder, or "vidray-demo", which comes with vidray.

    CheckpointError if it cannot be trusted.
    """
    loaded = LocalModel.load(_folder(model), int8=int8)
    with closing(LocalFlow(loaded, options=options or PlanOptions())) as flow:
        yield _Local(flow)


@contextmanager
def open_fleet(
    model: str | os.PathLike[str],
    *,
    options: PlanOptions | None = None,
    profile: "Profile | None" = None,
    address: str | None = None,
) -> Iterator[Videos]:
    """The same over Ray actors, which end with the block.

    profile: how much of a machine or a fleet to take; the laptop's if not given. address: of a
    running cluster; without it Ray starts here, on loopback only.
    """
    from actors.launch import start_fleet  # noqa: PLC0415 - Ray takes a second to import

    with start_fleet(_folder(model), options=options, profile=profile, address=address) as fleet:
        yield _OverRay(fleet)


class _Local:
    def __init__(self, flow: LocalFlow) -> None:
        self._flow = flow

    async def analyse(
        self, source: AnySource, tasks: Tasks | None = None, *, listener: Listener = ignore
    ) -> Record:
        found = _source(source)
        return await analyse(
            found, tasks or Tasks(), self._flow, video_id=_video_id(found), listener=listener
        )

    def session(self, source: AnySource) -> Session:
        return LocalSession(self._flow, _source(source))


class _OverRay:
    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    async def analyse(
        self, source: AnySource, tasks: Tasks | None = None, *, listener: Listener = ignore
    ) -> Record:
        found = _source(source)
        return await self._fleet.analyse(
            found, tasks or Tasks(), video_id=_video_id(found), listener=listener
        )

    def session(self, source: AnySource) -> Session:
        return self._fleet.session(_source(source))


def _folder(model: str | os.PathLike[str]) -> Path:
    return find_model(Path(model))


def _source(source: AnySource) -> Source:
    return source if isinstance(source, Source) else Source.of(os.path.abspath(source))


def _video_id(source: Source) -> str:
    """As a job over this video alone, without questions of its own, names it."""
    return Item(uri=source.uri, start_s=source.start_s, end_s=source.end_s).video_id
