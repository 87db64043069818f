"""The way of one video, from its source to its record. Read this first.

opened    header and packet index only; the plan is frozen from here on
watch     frames become token chunks become keys and values while the rest is still being read,
          and then everything is asked that is asked about them
combine   several windows: what was said of each becomes one answer
record    one typed row, whatever happened
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version

from pipeline.clock import Clock
from pipeline.errors import BadInput
from pipeline.flow import (
    EncodedChunk,
    Event,
    Flow,
    Listener,
    Moved,
    OpenStream,
    Planned,
    Video,
    Words,
)
from pipeline.stint import Place
from pipeline.tasks.records import MediaFacts, PlanFacts, Provenance, Record
from pipeline.tasks.requests import (
    Outcome,
    Request,
    View,
    answers,
    boxes,
    captions,
    combine,
    make_views,
)
from pipeline.tasks.tasks import Tasks
from pipeline.types import Size
from pipeline.video.source import Source


@cache
def _version() -> str:
    """Of this package; to read it from the disk takes longer than all else of a record."""
    return version("vidray")


def ignore(event: Event) -> None:
    """The listener of whoever only wants the record."""


async def analyse(
    source: Source, tasks: Tasks, flow: Flow, *, video_id: str, listener: Listener = ignore
) -> Record:
    """Do all tasks on one video. Its own faults make a failed record; anything else is raised."""
    case = _Case(source, tasks, flow, video_id=video_id, listener=listener)
    try:
        async with case.opened() as video:
            for view in case.views(video):
                await case.watch(video, view)
        await case.combine()
    except BadInput as error:
        return case.failure(error)
    return case.record()


def failure(source: Source, tasks: Tasks, flow: Flow, *, video_id: str, error: BadInput) -> Record:
    """The record of a video that never got as far as `analyse` recording anything."""
    return _Case(source, tasks, flow, video_id=video_id, listener=ignore).failure(error)


class _Case:
    """One video's way: what was found out, written and measured so far."""

    def __init__(
        self, source: Source, tasks: Tasks, flow: Flow, *, video_id: str, listener: Listener
    ) -> None:
        self._source = source
        self._tasks = tasks
        self._flow = flow
        self._video_id = video_id
        self._tell = listener
        self._clock = Clock()
        self._place = Place.here("stream host")
        self._started_s = time.monotonic()
        self._video: Video | None = None
        self._num_frames = 0  # of all views
        self._num_good = 0
        self._num_damaged = 0
        self._outcomes: list[Outcome] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Video]:
        async with AsyncExitStack() as stack:
            with self._clock.timing("plan"):
                video = await stack.enter_async_context(self._flow.open(self._source))
            self._video = video
            yield video

    def views(self, video: Video) -> list[View]:
        views = make_views(video.plan, self._tasks, still_at=video.still_at)
        num_steps = sum(view.window.grid.t for view in views)
        self._num_frames = sum(view.window.num_frames for view in views)
        stint = self._place.stint("plan", self._started_s)
        self._tell(Planned(media=video.media, plan=video.plan, num_steps=num_steps, stint=stint))
        return views

    async def watch(self, video: Video, view: View) -> None:
        async with self._flow.stream(view) as stream:
            async with aclosing(video.token_chunks(view, listener=self._tell)) as chunks:
                await self._prefill_all(chunks, stream, view)
            self._outcomes += await self._answers(stream, view.requests)

    async def _prefill_all(
        self, chunks: AsyncIterator[EncodedChunk], stream: OpenStream, view: View
    ) -> None:
        """In order; the next chunk is sent while one is taken in, so the decoder never waits.

        If the video ends badly, what is under way is awaited: its stream must not close meanwhile.
        """
        sent: deque[asyncio.Task[None]] = deque()
        try:
            async for chunk in chunks:
                self._count(chunk)
                sent.append(asyncio.create_task(self._prefill(chunk, stream, view)))
                if len(sent) > 1:
                    await sent.popleft()
            while sent:
                await sent.popleft()
        except asyncio.CancelledError:
            for task in sent:
                task.cancel()
            raise
        finally:
            await asyncio.gather(*sent, return_exceptions=True)

    async def _prefill(self, chunk: EncodedChunk, stream: OpenStream, view: View) -> None:
        stint = await stream.prefill(chunk)
        chunk.taken()
        self._clock.add("prefill", stint.duration_s)
        num_steps = view.window.chunks[chunk.index].num_steps
        self._tell(Moved(num_steps, stint, view.window.index, chunk.index))

    def _count(self, chunk: EncodedChunk) -> None:
        self._clock.add("read", chunk.read_s)
        self._clock.add("encode", chunk.encode_s)
        self._num_good += chunk.num_frames - chunk.num_damaged
        self._num_damaged += chunk.num_damaged

    async def combine(self) -> None:
        """Bring windows' answers together, in as many rounds as their number needs."""
        max_parts = self._flow.max_parts(self._tasks.sampling.max_new_tokens)
        parts = self._outcomes
        while requests := combine(parts, max_parts=max_parts):
            async with self._flow.stream(None) as stream:
                parts = await self._answers(stream, requests)
            self._outcomes += [part for part in parts if part.request.window_index is None]

    async def _answers(self, stream: OpenStream, requests: Sequence[Request]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        since_s = dict.fromkeys(range(len(requests)), time.monotonic())
        with self._clock.timing("generate"):
            async with aclosing(stream.write(requests)) as pieces:
                async for piece in pieces:
                    index = piece.question_index
                    if piece.text:
                        self._clock.mark_first_word()
                        stint = self._place.stint("generate", since_s[index])
                        since_s[index] = stint.ended_s
                        self._tell(Words(requests[index], piece.text, stint))
                    if piece.result is not None:
                        outcomes[index] = Outcome(requests[index], piece.result)
        return [outcomes[index] for index in range(len(requests))]

    def record(self) -> Record:
        """The result; a failure if not one request could be answered."""
        failures = [o.result for o in self._outcomes if isinstance(o.result, BadInput)]
        if self._video is None or len(failures) == len(self._outcomes):
            return self.failure(failures[0])
        plan = self._video.plan
        return replace(
            self._blank(),
            captions=captions(self._outcomes),
            answers=answers(self._outcomes),
            boxes=boxes(self._outcomes, source=Size(plan.source_height, plan.source_width)),
        )

    def failure(self, error: BadInput) -> Record:
        """Why there is no result, and all that was found out before."""
        return replace(self._blank(), status="failed", code=error.code, detail=error.detail)

    def _blank(self) -> Record:
        """A record of all that is known without any answer."""
        blank = Record(
            video_id=self._video_id,
            uri=self._source.uri.encode("utf-8", "backslashreplace").decode(),
            etag=self._source.etag,
            size_bytes=None,
            status="ok",
            provenance=Provenance(
                model=self._flow.model,
                model_digest=self._flow.model_digest,
                tasks_digest=self._tasks.digest,
                version=_version(),
            ),
            timings=self._clock.timings,
        )
        if self._video is None:
            return blank
        return replace(
            blank,
            etag=self._video.etag,
            size_bytes=self._video.size_bytes,
            flags=(*self._video.media.flags, *(["damaged_frames"] if self._num_damaged else [])),
            coverage=self._num_good / self._num_frames if self._num_frames else None,
            media=MediaFacts.of(self._video.media),
            plan=PlanFacts.of(self._video.plan),
        )
