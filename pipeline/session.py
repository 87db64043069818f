"""An open video that can be asked as often as wanted, from the end of it or following up.

What a question needs to look at (the video's windows, the still at a time) is watched once and
stays in the decoder for the next question. Streams that were given up meanwhile, by `rest` or with
an actor that was lost, are watched again when they are asked: the plan is frozen, so the words are
the same.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from pipeline.clock import Clock
from pipeline.config import Sampling
from pipeline.engine.question import Completion, Question
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.events import Listener, Moved, Planned, Words, ignore
from pipeline.flow import AnyFlow, DecoderStream, EncodedChunk, Video
from pipeline.span import Process
from pipeline.tasks.records import Answer, Box
from pipeline.tasks.requests import (
    Asked,
    Request,
    View,
    answers,
    boxes,
    combine,
    make_views,
)
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.types import MediaInfo, SamplingPlan, Size
from pipeline.video.source import Source

MAX_STREAMS = 1  # of one session: a long video's windows are watched one after the other
ViewKey = tuple[str, int]  # plan hash, window index
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what a follow-up of it needs: the conversation on each window, as ids."""

    answer: Answer
    conversation: dict[int | None, Ids] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class _Watched:
    """A stream that has seen all of its view."""

    stream: DecoderStream[object]
    num_users: int = 0


@dataclass(slots=True)
class Sight:
    """How much of a view was there to be seen."""

    num_frames: int
    num_good: int = 0
    num_damaged: int = 0


class Session:
    """One video on one flow. Use as `async with`; then its media and plan are known.

    max_streams: kept in the decoder at one time; the one used longest ago gives way to another.
    on_idle: is called whenever nothing is being asked any more. The listener of a question hears
    what happens for it.
    errors: BadInput for the video's own fault, Transient for a loss; ask again after that.
    """

    def __init__(
        self,
        flow: AnyFlow,
        source: Source,
        *,
        max_streams: int = MAX_STREAMS,
        on_idle: Callable[["Session"], None] = lambda session: None,
    ) -> None:
        self.source = source
        self.clock = Clock()
        self.sights: dict[ViewKey, Sight] = {}  # of what was watched
        self._flow = flow
        self._max_streams = max_streams
        self._on_idle = on_idle
        self._process = Process.here("stream host")
        self._started_s = time.monotonic()
        self._facts: Video[object, object] | None = None  # of the first opening
        self._video: Video[object, object] | None = None  # while frames may be wanted
        self._streams: dict[ViewKey, _Watched] = {}  # the one used longest ago first
        self._num_asking = 0
        self._turn = asyncio.Condition()

    @property
    def is_open(self) -> bool:
        """Whether media and plan are known."""
        return self._facts is not None

    @property
    def media(self) -> MediaInfo:
        """What the header says of the video."""
        return self._opened.media

    @property
    def plan(self) -> SamplingPlan:
        """What of it the model looks at."""
        return self._opened.plan

    @property
    def etag(self) -> str:
        """Identity of the video's bytes."""
        return self._opened.etag

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._opened.size_bytes

    @property
    def num_tokens(self) -> int:
        """What its streams reserve in the decoders."""
        return sum(watched.stream.num_tokens for watched in self._streams.values())

    async def open(self) -> None:
        """Read the header and plan."""
        with self.clock.timing("plan"):
            self._facts = await self._opened_video()

    async def close(self) -> None:
        """Free everything; twice is once."""
        await self._let_go_of_video()
        while self._streams:
            _, watched = self._streams.popitem()
            await watched.stream.close()

    async def rest(self) -> None:
        """Free what nobody uses right now; the next question watches the video again."""
        for key in [key for key, each in self._streams.items() if not each.num_users]:
            await self._streams.pop(key).stream.close()

    async def ask(
        self,
        questions: Sequence[Ask | str],
        *,
        sampling: Sampling | None = None,
        after: Reply | None = None,
        listener: Listener = ignore,
    ) -> list[Reply]:
        """Answer all questions, of the whole video; a failed one has its code in its answer.

        after: the answer they follow up; without it they begin at the end of the video.
        sampling: the checkpoint's own if not given.
        """
        asks = tuple(Ask(question=each) if isinstance(each, str) else each for each in questions)
        tasks = Tasks(caption=None, asks=asks, sampling=sampling or self._flow.model.sampling)
        conversations: dict[int, dict[int | None, Ids]] = {}
        asked = await self.perform(
            tasks, after=after, conversations=conversations, listener=listener
        )
        by_task = {
            request.task_index: (request, said)
            for request, said in asked  # last, whole
        }
        return [
            Reply(answers([by_task[index]])[0], conversations.get(index, {}))
            for index in range(1, len(asks) + 1)
        ]

    async def ground(
        self,
        query: str,
        *,
        times_s: Sequence[float] = (),
        sampling: Sampling | None = None,
        listener: Listener = ignore,
    ) -> tuple[Box, ...]:
        """Where something is in the frames shown at these times; without any, half-way through."""
        ground = Ground(query=query, times_s=tuple(times_s))
        tasks = Tasks(
            caption=None, grounds=(ground,), sampling=sampling or self._flow.model.sampling
        )
        return boxes(await self.perform(tasks, listener=listener), source=self.source_size)

    @property
    def source_size(self) -> Size:
        """Of the picture that boxes are in."""
        return Size(self.plan.source_height, self.plan.source_width)

    async def perform(
        self,
        tasks: Tasks,
        *,
        after: Reply | None = None,
        conversations: dict[int, dict[int | None, Ids]] | None = None,
        listener: Listener = ignore,
        is_last: bool = False,
    ) -> list[Asked]:
        """Do all tasks: what was asked of every window, then what brings their answers together.

        conversations: is filled with the ids of every task's conversation on each window.
        is_last: nothing will be asked after this.
        """
        self._num_asking += 1
        try:
            asked = await self._watch_and_ask(
                tasks, after, conversations, listener=listener, is_last=is_last
            )
            return asked + await self._combined(asked, tasks, listener=listener)
        finally:
            self._num_asking -= 1
            if not self._num_asking:
                self._on_idle(self)

    async def _watch_and_ask(
        self,
        tasks: Tasks,
        after: Reply | None,
        conversations: dict[int, dict[int | None, Ids]] | None,
        *,
        listener: Listener,
        is_last: bool,
    ) -> list[Asked]:
        views = make_views(self.plan, tasks, still_at=self._opened.still_at)
        for view in views:
            self.sights.setdefault(_key(view), Sight(view.window.num_frames))
        listener(self._planned(views))
        asked: list[Asked] = []
        try:
            for view in views:
                earlier = [_conversation(after, request) for request in view.requests]
                questions = self._flow.model.prompts.questions(view, view.requests, earlier=earlier)
                async with self._watched(view, listener) as stream:
                    said = await self._written(
                        stream, view.requests, questions, listener=listener, closes=is_last
                    )
                asked += zip(view.requests, said, strict=True)
                if conversations is not None:
                    _remember(conversations, view.requests, questions, said)
        finally:
            if self._num_asking == 1:
                await self._let_go_of_video()
        return asked

    async def _combined(
        self, asked: Sequence[Asked], tasks: Tasks, *, listener: Listener
    ) -> list[Asked]:
        """Windows' answers brought together, in as many rounds as their number needs."""
        prompts = self._flow.model.prompts
        max_parts = prompts.max_parts(tasks.sampling.max_new_tokens)
        parts, whole = list(asked), list[Asked]()
        while requests := combine(parts, max_parts=max_parts):
            await self.rest()  # or its own windows could keep the room that this needs
            stream = await self._flow.stream(None)
            try:
                questions = prompts.questions(None, requests)
                said = await self._written(
                    stream, requests, questions, listener=listener, closes=True
                )
            finally:
                await stream.close()
            parts = list(zip(requests, said, strict=True))
            whole += [part for part in parts if part[0].window_index is None]
        return whole

    @asynccontextmanager
    async def _watched(
        self, view: View, listener: Listener
    ) -> AsyncIterator[DecoderStream[object]]:
        """A stream that has seen the view; it stays, unless it was lost or closed itself."""
        key = _key(view)
        async with self._turn:
            watched = self._streams.pop(key, None)
            if watched is None:
                await self._make_room()
                watched = _Watched(await self._watch(view, listener))
            self._streams[key] = watched
            watched.num_users += 1
        try:
            yield watched.stream
        except Transient:  # whatever was lost: the next question watches the video again
            if self._streams.get(key) is watched:
                del self._streams[key]
            await watched.stream.close()
            raise
        finally:
            watched.num_users -= 1
            if not watched.stream.is_open and self._streams.get(key) is watched:
                del self._streams[key]
            async with self._turn:
                self._turn.notify_all()

    async def _make_room(self) -> None:
        """Close streams until one more may be open, waiting for those that are in use."""
        while len(self._streams) >= self._max_streams:
            await self.rest()
            if len(self._streams) >= self._max_streams:
                await self._turn.wait()

    async def _watch(self, view: View, listener: Listener) -> DecoderStream[object]:
        video = self._video or await self._opened_video()
        stream = await self._flow.stream(view)
        try:
            self.sights[_key(view)] = Sight(view.window.num_frames)
            async with aclosing(video.token_chunks(view, listener=listener)) as chunks:
                await self._prefill_all(chunks, stream, view, listener)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _prefill_all(
        self,
        chunks: AsyncIterator[EncodedChunk[object]],
        stream: DecoderStream[object],
        view: View,
        listener: Listener,
    ) -> None:
        """In order; the next chunk is sent while one is taken in, so the decoder never waits.

        If the video ends badly, what is under way is awaited: its stream must not close meanwhile.
        """
        sent: deque[asyncio.Task[None]] = deque()
        try:
            async for chunk in chunks:
                self._count(chunk, self.sights[_key(view)])
                sent.append(asyncio.create_task(self._prefill(chunk, stream, view, listener)))
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

    async def _prefill(
        self,
        chunk: EncodedChunk[object],
        stream: DecoderStream[object],
        view: View,
        listener: Listener,
    ) -> None:
        span = await stream.prefill(chunk)
        chunk.taken()
        self.clock.add("prefill", span.duration_s)
        listener(Moved(chunk.place.num_steps, span, view.window.index, chunk.place.index))

    def _count(self, chunk: EncodedChunk[object], sight: Sight) -> None:
        self.clock.add("read", chunk.read_s)
        self.clock.add("encode", chunk.encode_s)
        sight.num_good += chunk.num_frames - chunk.num_damaged
        sight.num_damaged += chunk.num_damaged

    async def _written(
        self,
        stream: DecoderStream[object],
        requests: Sequence[Request],
        questions: Sequence[Question],
        *,
        listener: Listener,
        closes: bool,
    ) -> list[Completion]:
        """How each request ended, in their order."""
        said: dict[int, Completion] = {}
        since_s = dict.fromkeys(range(len(requests)), time.monotonic())
        with self.clock.timing("generate"):
            async with aclosing(stream.ask(questions, closes=closes)) as deltas:
                async for delta in deltas:
                    index = delta.question_index
                    if delta.text:
                        self.clock.mark_first_word()
                        span = self._process.span("generate", since_s[index])
                        since_s[index] = span.ended_s
                        listener(Words(requests[index], delta.text, span))
                    if delta.completion is not None:
                        said[index] = delta.completion
        return [said[index] for index in range(len(requests))]

    def _planned(self, views: Sequence[View]) -> Planned:
        new = [view for view in views if _key(view) not in self._streams]
        span = self._process.span("plan", self._started_s)
        num_steps = sum(view.window.grid.t for view in new)
        return Planned(media=self.media, plan=self.plan, num_steps=num_steps, span=span)

    @property
    def _opened(self) -> Video[object, object]:
        if self._facts is None:
            raise RuntimeError("a session is used as `async with`")
        return self._facts

    async def _opened_video(self) -> Video[object, object]:
        """The video, open in a reader; SOURCE_CHANGED if it is no longer what was planned."""
        video = self._video = await self._flow.open(self.source)
        if self._facts is not None and video.plan.hash != self.plan.hash:
            await self._let_go_of_video()
            detail = "the video is another one than when it was opened"
            raise BadInput(FailureCode.SOURCE_CHANGED, detail)
        return video

    async def _let_go_of_video(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            await video.close()

    async def __aenter__(self) -> "Session":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _key(view: View) -> ViewKey:
    return view.plan.hash, view.window.index


def _conversation(after: Reply | None, request: Request) -> Ids:
    return () if after is None else after.conversation.get(request.window_index, ())


def _remember(
    conversations: dict[int, dict[int | None, Ids]],
    requests: Sequence[Request],
    questions: Sequence[Question],
    said: Sequence[Completion],
) -> None:
    for request, question, completion in zip(requests, questions, said, strict=True):
        if completion.error is None:
            ids = question.ids + completion.token_ids
            conversations.setdefault(request.task_index, {})[request.window_index] = ids
