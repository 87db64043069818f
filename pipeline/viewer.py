"""The views of one video that a decoder has seen: watched once, kept for the next question.

A stream that was given up meanwhile, by `rest` or with an actor that was lost, is watched again
when it is wanted: the plan is frozen, so it shows the same.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.carried_out import Begun, carried_out
from pipeline.clock import Clock
from pipeline.errors import BadInput, FailureCode, SessionClosed, Transient, VidrayError
from pipeline.events import Listener, Moved
from pipeline.flow import AnyFlow, DecoderStream, EncodedChunk, Video
from pipeline.patience import Deadline
from pipeline.tasks.requests import View
from pipeline.video.source import Source

WAITING_S = 0.2  # for room, before others are told
ViewKey = tuple[str, int]  # plan hash, window index


@dataclass(slots=True, eq=False)
class Watched:
    """A stream that has seen all of its view."""

    stream: DecoderStream[object]
    num_users: int = 0
    num_uses: int = 0


@dataclass(slots=True)
class Sight:
    """How much of a view was there to be seen."""

    num_frames: int
    num_good: int = 0
    num_damaged: int = 0


class Viewer:
    """Watches views of one video for a session, and keeps at most max_streams of its windows, and
    of its stills.

    The one used longest ago gives way to another of its kind; all do where no decoder has room.
    on_waiting: again and again then; the deadline hears of that. yields: to viewers that do not,
    wherever both wait.
    """

    def __init__(
        self,
        flow: AnyFlow,
        source: Source,
        *,
        max_streams: int,
        clock: Clock,
        deadline: Deadline,
        on_waiting: Callable[[], Awaitable[None]] | None,
        yields: bool,
    ) -> None:
        self.sights: dict[ViewKey, Sight] = {}  # of what was watched
        self._flow = flow
        self._source = source
        self._max_streams = max_streams
        self._clock = clock
        self._deadline = deadline
        self._on_waiting = on_waiting
        self._yields = yields
        self._facts: Video[object, object] | None = None  # of the first opening
        self._video: Video[object, object] | None = None  # while frames may be wanted
        self._streams: dict[ViewKey, Watched] = {}  # the one used longest ago first
        self._turn = asyncio.Condition()
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether media and plan are known."""
        return self._facts is not None

    @property
    def facts(self) -> Video[object, object]:
        """The video as it was opened first."""
        if self._facts is None:
            raise RuntimeError("a session is used as `async with`")
        return self._facts

    @property
    def num_tokens(self) -> int:
        """What its streams reserve in the decoders."""
        return sum(watched.stream.num_tokens for watched in self._streams.values())

    def has(self, view: View) -> bool:
        """Whether it need not be watched again."""
        return key_of(view) in self._streams

    async def open(self) -> None:
        """Read the header and plan."""
        self._require_not_closed()
        self._facts = await self._opened_video()

    async def close(self) -> None:
        """Free everything, whatever becomes of the caller; twice is once.

        What is being watched meanwhile is freed when it is.
        """
        self._is_closed = True
        streams = self._taken_out(list(self._streams))
        await carried_out(_all_done(self.let_go_of_video(), *(each.close() for each in streams)))

    async def rest(self) -> None:
        """Free the streams that nobody uses right now, whatever becomes of the caller."""
        await self._let_go([key for key, each in self._streams.items() if not each.num_users])

    async def _let_go(self, keys: Sequence[ViewKey]) -> None:
        await carried_out(_all_done(*(each.close() for each in self._taken_out(keys))))

    async def let_go_of_video(self) -> None:
        """Close it in its reader; streams stay."""
        video, self._video = self._video, None
        if video is not None:
            await video.close()

    @asynccontextmanager
    async def seen(self, view: View, listener: Listener) -> AsyncIterator[Watched]:
        """A stream that has seen the view; it stays, unless it was lost or closed itself."""
        key = key_of(view)
        async with self._turn:
            self._require_not_closed()
            await self._make_room(key)
            watched = self._streams.pop(key, None) or Watched(await self._watch(view, listener))
            self._streams[key] = watched
            watched.num_users += 1
        try:
            yield watched
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

    async def room_for(self, view: View | None) -> DecoderStream[object]:
        """A stream; while there is no room for it, others are told so."""
        self._require_not_closed()
        opening = asyncio.ensure_future(self._flow.stream(view, yields=self._yields))
        may_free = self._on_waiting is not None or self._streams
        pause_s = WAITING_S if may_free else self._flow.patience.silence_s / 4
        try:
            while not (await asyncio.wait({opening}, timeout=pause_s))[0]:
                self._deadline.heard()
                await self.rest()  # or its own could keep the room that this needs
                if self._on_waiting is not None:
                    await self._on_waiting()
        except BaseException:
            opening.cancel()
            await carried_out(_closed_if_open(opening))
            raise
        return opening.result()

    def _taken_out(self, keys: Sequence[ViewKey]) -> list[DecoderStream[object]]:
        """The streams of these views, to be closed: nobody finds them any more."""
        return [self._streams.pop(key).stream for key in keys]

    async def _make_room(self, key: ViewKey) -> None:
        """Close streams of this kind until one more may be open, waiting for those in use.

        Whoever waits for the same view may have it watched meanwhile.
        """
        while key not in self._streams and len(alike := self._alike(key)) >= self._max_streams:
            if idle := [each for each in alike if not self._streams[each].num_users]:
                await self._let_go(idle[:1])
            else:
                await self._turn.wait()

    def _alike(self, key: ViewKey) -> list[ViewKey]:
        """Those that are stills, or windows, as this one is: a still is watched in a moment, and
        the next question would have to watch all of the video again.
        """
        plan_hash = self.facts.plan.hash
        return [each for each in self._streams if (each[0] == plan_hash) == (key[0] == plan_hash)]

    async def _watch(self, view: View, listener: Listener) -> DecoderStream[object]:
        video = self._video or await self._opened_video()
        stream = await self.room_for(view)
        try:
            self.sights[key_of(view)] = Sight(view.window.num_frames)
            async with aclosing(video.token_chunks(view, listener=listener)) as chunks:
                await self._prefill_all(chunks, stream, view, listener)
            self._require_not_closed()
        except BaseException as error:
            await stream.close()
            if isinstance(error, VidrayError):  # of a video that was closed under its reading
                self._require_not_closed()
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
                self._count(chunk, self.sights[key_of(view)])
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
        try:
            span = await stream.prefill(chunk)
        finally:  # lost, too: who waits for the next chunk hears of it when that one comes
            chunk.taken()
        self._clock.add("prefill", span.duration_s)
        listener(Moved(chunk.place.num_steps, span, view.window.index, chunk.place.index))

    def _require_not_closed(self) -> None:
        if self._is_closed:
            raise SessionClosed

    def _count(self, chunk: EncodedChunk[object], sight: Sight) -> None:
        self._clock.add("read", chunk.read_s)
        self._clock.add("encode", chunk.encode_s)
        sight.num_good += chunk.num_frames - chunk.num_damaged
        sight.num_damaged += chunk.num_damaged

    async def _opened_video(self) -> Video[object, object]:
        """The video, open in a reader; SOURCE_CHANGED if it is no longer what was planned."""
        video = self._video = await self._flow.open(self._source, yields=self._yields)
        if self._facts is not None and video.plan.hash != self._facts.plan.hash:
            await self.let_go_of_video()
            detail = "the video is another one than when it was opened"
            raise BadInput(FailureCode.SOURCE_CHANGED, detail)
        return video


def key_of(view: View) -> ViewKey:
    """What tells a view from others of the same video."""
    return view.plan.hash, view.window.index


async def _all_done(*works: Coroutine[Any, Any, None]) -> None:
    """All of them, though some fail; then the first failure is raised."""
    for outcome in await asyncio.gather(*map(Begun, works), return_exceptions=True):
        if outcome is not None:
            raise outcome


async def _closed_if_open(opening: "asyncio.Future[DecoderStream[object]]") -> None:
    """A stream may have had room just when nobody wanted it any more."""
    (opened,) = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(opened, DecoderStream):
        await opened.close()
