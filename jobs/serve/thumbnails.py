"""Small pictures of sampled frames, made when asked for: decoded again, in the sandbox."""

import asyncio
from collections import OrderedDict

from jobs.report.strips import jpeg_of, moments_plan
from jobs.serve.refusals import not_found
from jobs.serve.shared_stream import SharedStream
from jobs.serve.uploads import Uploads
from pipeline.config import DecodeLimits
from pipeline.types import Size
from pipeline.video.reader import open_media

MAX_BYTES = 32 << 20  # of JPEGs that are kept, of a few kB each
READS_AT_ONCE = 1  # they only take time from answers
Want = tuple[int, int]  # frame, width


class Thumbnails:
    """What is asked for while another picture of the video is made comes in one pass."""

    def __init__(self, uploads: Uploads, limits: DecodeLimits) -> None:
        self._uploads = uploads
        self._limits = limits
        self._made: OrderedDict[tuple[str, Want], bytes] = OrderedDict()
        self._wanted: dict[str, set[Want]] = {}
        self._turn = asyncio.Semaphore(READS_AT_ONCE)

    async def jpeg(self, stream: SharedStream, frame: int, *, width: int) -> bytes:
        """The frame of this index in the plan. BadInput where the video is at fault, Refusal (404)
        where it was removed."""
        if frame >= len(stream.times_s):
            raise not_found("frame")
        want = (frame, width)
        if (stream.id, want) not in self._made:
            self._wanted.setdefault(stream.id, set()).add(want)
            async with self._turn:
                await self._make(stream)
        picture = self._made.get((stream.id, want))
        if picture is None:  # whoever went first was told why
            raise not_found("frame")
        return picture

    async def _make(self, stream: SharedStream) -> None:
        wanted = sorted(self._wanted.pop(stream.id, ()))
        if not wanted:
            return  # whoever went first made it
        pictures = await asyncio.to_thread(self._read, stream, wanted)
        for want, picture in zip(wanted, pictures, strict=True):
            self._made[stream.id, want] = picture
        while sum(map(len, self._made.values())) > MAX_BYTES:
            self._made.popitem(last=False)

    def _read(self, stream: SharedStream, wanted: list[Want]) -> list[bytes]:
        """In order of time; the widest decides how large they are decoded."""
        source = self._uploads.source(stream.upload)
        media = stream.session.media
        width = min(max(width for _, width in wanted), media.width)
        size = Size(max(1, round(media.height * width / media.width)), width)
        times_s = [stream.times_s[frame] for frame, _ in wanted]
        plan = moments_plan(media, times_s, size)
        with open_media(source, self._limits) as opened:
            chunks = opened.read(plan, plan.windows[0])
            frames = [frame for chunk in chunks for frame in chunk.frames.numpy()]
        return [
            jpeg_of(frame, width=wanted_width)
            for frame, (_, wanted_width) in zip(frames, wanted, strict=True)
        ]
