"""Reading: opens videos in disposable children, hands out their frames chunk by chunk.

A chunk is read when it is asked for; until then the child decodes ahead into a ring of fixed size.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TypeVar

from pipeline.config import DecodeLimits
from pipeline.engine.ids import StreamId
from pipeline.errors import Transient
from pipeline.leases import Claim
from pipeline.ports import Opened, Read
from pipeline.span import Process, Span
from pipeline.stages import precedence
from pipeline.tasks.requests import View
from pipeline.types import FrameChunk
from pipeline.video.libraries import Reader
from pipeline.video.reader import Media, open_media
from pipeline.video.sandbox import measures_held
from pipeline.video.source import Source, identity

Result = TypeVar("Result")


class OpenVideo:
    """One video in this process; whoever works on it holds its lock."""

    def __init__(self, process: Process) -> None:
        self.lock = asyncio.Lock()
        self._process = process
        self._held = ExitStack()
        self._media: Media | None = None
        self._chunks: Iterator[FrameChunk] = iter(())

    def open(self, source: Source, limits: DecodeLimits) -> Opened:
        self._media = self._held.enter_context(open_media(source, limits))
        return Opened(
            media=self._media.info,
            etag=identity(source),
            size_bytes=self._media.size_bytes,
            sandbox=self._media.sandbox,
        )

    def read(self, begins: View | None, reader: Reader) -> Read[FrameChunk]:
        started_s = time.monotonic()
        if self._media is None:
            raise Transient("the video is not open")
        if begins is not None:
            self._chunks = self._media.read(begins.plan, begins.window, reader=reader)
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Transient("there are no more frames in this window")
        num_frames, num_bytes = len(chunk.is_damaged), chunk.frames.nbytes
        span = self._process.span("read", started_s, num_frames=num_frames, num_bytes=num_bytes)
        return Read(chunk, chunk.is_damaged, span)

    def close(self) -> None:
        self._media, self._chunks = None, iter(())  # who still comes finds nothing to read
        self._held.close()


class ReadingStage:
    """Videos are open under names that their streams choose; one that was restarted knows none.

    Names are registered in the order of the calls, before any of them waits: a video that is closed
    while it is being opened is closed.
    num_threads: videos that are read at once. observe: is told of every chunk, and of how many are
    asked for and not read. on_failure: is told when a thread hangs, as in a file system that does
    not answer: it is lost.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        reader: Reader = "pyav",
        num_threads: int = 1,
        process: Process | None = None,
        observe: Callable[[Span, int], None] = lambda span, num_waiting: None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._limits = limits
        self._reader: Reader = reader
        self._process = process or Process.here("reader")
        self._observe = observe
        self._on_failure = on_failure
        self._videos: dict[StreamId, OpenVideo] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._num_waiting = 0  # chunks asked for and not read
        self._thread = ThreadPoolExecutor(num_threads, thread_name_prefix="read")

    @property
    def videos(self) -> tuple[StreamId, ...]:
        """Of those that are open."""
        return tuple(self._videos)

    async def sandbox(self) -> tuple[str, ...]:
        """The measures of confinement.py that hold the children here. Raises Transient."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, measures_held)

    async def open(self, video: StreamId, source: Source) -> Opened:
        """Start a child on the video and read its header. Raises BadInput."""
        limits = self._limits
        if any(video.yields or not other.yields for other in self._videos):
            limits = replace(limits, niceness=precedence.LATER_VIDEOS)
        opening = self._videos[video] = OpenVideo(self._process)
        return await self._on_thread(opening, lambda: opening.open(source, limits))

    async def read(self, video: StreamId, begins: View | None = None) -> Read[FrameChunk]:
        """The next chunk, or a new view's first one. Raises BadInput."""
        if video not in self._videos:
            raise Transient("the reader was restarted and lost the video")
        open_video = self._videos[video]
        self._num_waiting += 1
        try:
            read = await self._on_thread(open_video, lambda: open_video.read(begins, self._reader))
        finally:
            self._num_waiting -= 1
        self._observe(read.span, self._num_waiting)
        return read

    async def close(self, video: StreamId) -> None:
        """Kill the video's children, after the chunk they are at; unknown names are fine.

        Done whatever becomes of the caller: nobody else knows the video any more.
        """
        if video in self._videos:
            closing = asyncio.create_task(self._close(self._videos.pop(video)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)

    async def release(self, owner: str) -> None:
        """Close every video that this owner left open."""
        await asyncio.gather(*(self.close(each) for each in self.videos if each.owner == owner))

    def renew(self, claim: Claim) -> None:
        """In one process no call is lost, and nobody falls silent."""

    async def ready(self) -> bool:
        """It always is."""
        return True

    def stop(self, *, waits: bool = True) -> None:
        """End the threads; what they are in the middle of is finished first, and waited for."""
        self._thread.shutdown(wait=waits, cancel_futures=True)

    async def _close(self, video: OpenVideo) -> None:
        async with video.lock:
            await asyncio.get_running_loop().run_in_executor(None, video.close)

    async def _on_thread(self, video: OpenVideo, work: Callable[[], Result]) -> Result:
        """The children are bounded by their limits, so only what is around them can hang.

        Whoever gives up waiting gives up the lock only when the thread has left the video: its
        files and pictures must not be closed under it. One that hangs holds it for ever.
        """
        loop = asyncio.get_running_loop()
        left: Future[None] = Future()  # the thread has left the video, or will never come to it

        def unlock(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(video.lock.release)

        def visit() -> Result:
            if not left.set_running_or_notify_cancel():
                raise Transient("nobody waits for it any more")
            try:
                return work()
            finally:
                left.set_result(None)

        await video.lock.acquire()
        left.add_done_callback(unlock)
        try:
            async with asyncio.timeout(self._limits.hang_s) as deadline:
                return await loop.run_in_executor(self._thread, visit)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            self._videos = {name: one for name, one in self._videos.items() if one is not video}
            lost = Transient(f"a reader hangs for {self._limits.hang_s:.0f} s")
            self._on_failure(lost)
            raise lost from error
        finally:
            left.cancel()
