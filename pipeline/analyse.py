"""The way of one video, from its source to its record. Read this first.

opened    header and packet index only; the plan is frozen from here on
perform   frames become token chunks become keys and values while the rest is still being read,
          then everything is asked that is asked about them; several windows' answers become one
record    one typed row, whatever happened
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version

from pipeline.clock import Clock
from pipeline.errors import BadInput
from pipeline.events import Listener, ignore
from pipeline.flow import AnyFlow
from pipeline.model_identity import ModelIdentity
from pipeline.names import as_text
from pipeline.session import Session
from pipeline.tasks.records import MediaFacts, PlanFacts, Provenance, Record
from pipeline.tasks.requests import Asked, answers, boxes, captions
from pipeline.tasks.tasks import Tasks
from pipeline.types import Size
from pipeline.video.source import Source


async def analyse(
    source: Source, tasks: Tasks, flow: AnyFlow, *, video_id: str, listener: Listener = ignore
) -> Record:
    """Do all tasks on one video. Its own faults make a failed record; anything else is raised.

    Whoever waits for an answer in a session of the same flow goes first.
    """
    session = Session(flow, source, yields=True)
    blank = partial(_blank, source, tasks, flow.model.identity, video_id=video_id)
    try:
        async with session:
            asked = await session.perform(tasks, listener=listener, is_last=True)
    except BadInput as error:
        return _failed(_seen(blank(session.clock), session), error)
    return _answered(_seen(blank(session.clock), session), asked, source_size=session.source_size)


def failure(
    source: Source, tasks: Tasks, model: ModelIdentity, *, video_id: str, error: BadInput
) -> Record:
    """The record of a video that never got as far as `analyse` recording anything."""
    return _failed(_blank(source, tasks, model, Clock(), video_id=video_id), error)


def _answered(seen: Record, asked: Sequence[Asked], *, source_size: Size) -> Record:
    """The result; a failure if not one request could be answered."""
    errors = [said.error for _, said in asked if said.error is not None]
    if len(errors) == len(asked):
        return _failed(seen, errors[0])
    return replace(
        seen,
        captions=captions(asked),
        answers=answers(asked),
        boxes=boxes(asked, source=source_size),
    )


def _failed(record: Record, error: BadInput) -> Record:
    """Why there is no result, and all that was found out before."""
    held = error.sandbox or record.provenance.sandbox
    provenance = replace(record.provenance, sandbox=held)
    return replace(
        record, status="failed", code=error.code, detail=error.detail, provenance=provenance
    )


def _seen(blank: Record, session: Session) -> Record:
    """What opening and watching the video found out; the blank one if it never opened."""
    if not session.is_open:
        return blank
    sights = session.sights.values()
    num_frames = sum(sight.num_frames for sight in sights)
    is_damaged = any(sight.num_damaged for sight in sights)
    return replace(
        blank,
        etag=session.etag,
        size_bytes=session.size_bytes,
        flags=(*blank.flags, *session.media.flags, *(["damaged_frames"] if is_damaged else [])),
        coverage=sum(sight.num_good for sight in sights) / num_frames if num_frames else None,
        media=MediaFacts.of(session.media),
        plan=PlanFacts.of(session.plan),
        provenance=replace(blank.provenance, sandbox=session.sandbox),
    )


def _blank(
    source: Source, tasks: Tasks, model: ModelIdentity, clock: Clock, *, video_id: str
) -> Record:
    """A record of all that is known without the video."""
    return Record(
        video_id=video_id,
        uri=as_text(source.uri),
        etag=source.etag,
        size_bytes=None,
        status="ok",
        flags=model.flags,
        provenance=Provenance(
            model=model.name,
            model_digest=model.digest,
            tasks_digest=tasks.digest,
            version=_version(),
            device=model.numerics.device,
            dtype=model.numerics.dtype,
            quantization=model.numerics.quantization,
            engine=model.numerics.engine,
        ),
        timings=clock.timings,
    )


@cache
def _version() -> str:
    """Of this package; to read it from the disk takes longer than all else of a record."""
    return version("vidray")
