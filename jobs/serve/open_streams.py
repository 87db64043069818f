"""The videos that are open: at most so many, one of whoever has most of them gives way.

Samplings that come to the same plan share a stream. What gave way, or was left by a desk that died,
lies on the disk (stream_journal.py) and is opened again by whoever asks for it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from uuid import uuid4
from weakref import WeakValueDictionary

from actors.fleet_session import FleetSession
from jobs.serve.bodies import VideoSampling
from jobs.serve.left_stream import LeftStream, StreamEntry, StreamKey
from jobs.serve.rates import Rates
from jobs.serve.refusals import Refusal, not_found
from jobs.serve.served_videos import ServedVideos
from jobs.serve.shared_stream import SharedStream
from jobs.serve.stream_journal import StreamJournal
from jobs.serve.uploads import Upload, Uploads
from pipeline.carried_out import carried_out
from pipeline.events import Event
from pipeline.video.source import Source

FORGET_S = 3_600.0  # unasked; then a stream is over


class OpenStreams:
    """hear: is told of all that happens. on_left: of a stream that is opened again, with what it
    had, before anybody else gets it. on_closed: of one that nobody gets any more.
    """

    def __init__(
        self,
        videos: ServedVideos,
        uploads: Uploads,
        *,
        max_streams: int,
        max_frames: int,
        rates: Rates,
        hear: Callable[[str, Event], None],
        on_left: Callable[[SharedStream, LeftStream], None],
        on_closed: Callable[[SharedStream], None],
    ) -> None:
        self.journal = StreamJournal(uploads.folder / "streams", keep_s=FORGET_S)
        self._videos = videos
        self._uploads = uploads
        self._max_streams = max_streams
        self._max_frames = max_frames
        self._rates = rates
        self._hear = hear
        self._on_left = on_left
        self._on_closed = on_closed
        self._streams: dict[StreamKey, SharedStream] = {}
        self._opening: dict[StreamKey, asyncio.Task[SharedStream]] = {}
        self._planning: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._num_entering = 0

    @property
    def all(self) -> list[SharedStream]:
        return list(dict.fromkeys(self._streams.values()))

    async def open(self, upload: Upload, sampling: VideoSampling) -> tuple[SharedStream, bool]:
        """The stream of these bytes, planned so, and whether it is new. BadInput, Refusal."""
        key = (upload.owner, upload.sha256, sampling)
        if stream := self._streams.get(key):
            stream.used_at = time.time()
            return stream, False
        opening = self._opening.get(key)
        may_be_new = opening is None and self.journal.of_key(key) is None
        if opening is None:
            opening = self._opening[key] = asyncio.create_task(self._open(upload, sampling))
            opening.add_done_callback(lambda _: self._opening.pop(key, None))
        stream = await asyncio.shield(opening)
        return stream, may_be_new and stream.key == key

    async def get(self, stream_id: str, *, owner: str) -> SharedStream:
        """By its id. Refusal (404) for whoever else's, too."""
        for stream in self._streams.values():
            if stream.id == stream_id and stream.owner == owner:
                return stream
        return await self.again(self.journal.of_id(stream_id), owner=owner)

    async def again(self, entry: StreamEntry | None, *, owner: str) -> SharedStream:
        """One that is on the disk alone. Refusal (404) where it is not to be had."""
        if entry is None or entry.owner != owner:
            raise not_found("stream")
        upload = self._uploads.get(entry.file_id, owner=owner)
        stream, _ = await self.open(upload, entry.sampling)
        if stream.id != entry.stream_id:  # its plan would be another
            raise not_found("stream")
        return stream

    async def close(self, stream: SharedStream) -> None:
        """Stop what is being answered, and free everything, whatever becomes of the caller; it is
        over.
        """
        self.journal.end(stream)
        await self._free(stream, is_over=True)
        await self.journal.written(stream.id)

    async def leave(self, stream: SharedStream) -> None:
        """Free everything, likewise; whoever asks for it has it again, from the disk, as it is."""
        self.journal.leave(stream)
        await self._free(stream, is_over=False)

    async def end(self) -> None:
        """Leave all, those that are being opened too. Returns when all is as it shall stay."""
        while self._opening or self._streams:
            for opening in self._opening.values():
                opening.cancel()
            if self._opening:
                await asyncio.wait(self._opening.values())
            for stream in self.all:
                await self.leave(stream)
        await self.journal.close()

    async def sweep(self) -> None:
        """Close what nobody has asked for long enough."""
        for stream in self.all:
            is_open = self._streams.get(stream.key) is stream  # others may give way meanwhile
            if is_open and not stream.num_running and stream.used_at + FORGET_S <= time.time():
                await self.close(stream)
        await self.journal.sweep()

    async def _free(self, stream: SharedStream, *, is_over: bool) -> None:
        """Nobody gets it from now on. Who listens hears that what is being answered was stopped."""
        for key in [key for key, each in self._streams.items() if each is stream]:
            del self._streams[key]

        async def free() -> None:
            for answering in list(stream.answers.values()):
                await answering.stop()
            await stream.session.close()
            self._on_closed(stream)
            if is_over:
                stream.log.append("closed", {})
            stream.log.close()

        await carried_out(free())

    async def _open(self, upload: Upload, sampling: VideoSampling) -> SharedStream:
        """One after the other for the same bytes: the second may find that the plan is the same."""
        async with self._planning.setdefault((upload.owner, upload.sha256), asyncio.Lock()):
            session = self._videos.session(self._source(upload, sampling))
            try:
                await session.open()
                stream = await self._entered(session, upload, sampling)
            except BaseException:
                await carried_out(session.close())
                raise
            if stream.session is not session:
                await carried_out(session.close())
            return stream

    async def _entered(
        self, session: FleetSession, upload: Upload, sampling: VideoSampling
    ) -> SharedStream:
        key = (upload.owner, upload.sha256, sampling)
        left = await self._left(key, plan_hash=session.plan.hash)
        for stream in self.all if left is None else ():
            if stream.key[:2] == key[:2] and stream.session.plan.hash == session.plan.hash:
                stream.used_at = time.time()
                self._streams[key] = stream
                return stream
        await self._make_room(upload.owner)
        entry = StreamEntry(
            stream_id=f"stream-{uuid4().hex[:24]}",
            owner=upload.owner,
            file_id=upload.id,
            sha256=upload.sha256,
            sampling=sampling,
            created_at=int(time.time()),
        )
        stream = SharedStream(
            session,
            upload,
            left.entry if left else entry,
            rates=self._rates,
            hear=self._hear,
            left=left,
        )
        self._num_entering += 1
        try:
            await self.journal.keep(stream)
        finally:
            self._num_entering -= 1
        self._streams[key] = stream
        if left is not None:
            self._on_left(stream, left)
        return stream

    async def _left(self, key: StreamKey, *, plan_hash: str) -> LeftStream | None:
        """What there was of it, if it would be watched as it was then."""
        entry = self.journal.of_key(key)
        if entry is None:
            return None
        left = await self.journal.read(entry)
        if left is None or left.plan_hash != plan_hash:
            self.journal.remove(entry.stream_id)
            return None
        return left

    def _source(self, upload: Upload, sampling: VideoSampling) -> Source:
        source = self._uploads.source(upload)
        return Source(
            uri=source.uri,
            path=source.path,
            etag=source.etag,
            start_s=sampling.start_s,
            end_s=sampling.end_s,
            fps=sampling.fps,
            max_frames=sampling.max_frames or self._max_frames,
        )

    async def _make_room(self, owner: str) -> None:
        """Until one more of this owner may be open."""
        while len(streams := self.all) + self._num_entering >= self._max_streams:
            idle = [each for each in streams if not each.num_running]
            if not idle:
                what = f"all {self._max_streams} videos that may be open are being answered about"
                raise Refusal(429, "busy", f"{what}; ask again later", retry_after_s=5)
            num_of = Counter(each.owner for each in streams)
            await self.leave(min(idle, key=partial(_turn, owner, num_of)))


def _turn(owner: str, num_of: Counter[str], stream: SharedStream) -> tuple[int, bool, bool, float]:
    """When a stream gives way to one more of this owner: the least is the first.

    A page that listens would be back at once.
    """
    is_heard = stream.log.num_followers > 0
    return -num_of[stream.owner], stream.owner != owner, is_heard, stream.used_at
