"""What is asked of one open file: what is in it, the order of its pictures, wanted ones of them.

Runs in the decoding child only. This folder is all that talks to FFmpeg; what av raises becomes
BadInput in translation.py.
"""

from __future__ import annotations  # av.Packet and array are generic to the type checker only

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import count
from pkgutil import walk_packages

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.video.coded_order import coded_order
from pipeline.video.cropping import Margins, margins_of
from pipeline.video.descriptions import require_one_codec
from pipeline.video.ffmpeg.codecs import SKIPPING_DECODERS
from pipeline.video.ffmpeg.header import header_of
from pipeline.video.ffmpeg.left_bits import leaves_bits
from pipeline.video.ffmpeg.opened_video import OpenedVideo
from pipeline.video.ffmpeg.packet_index import index_packets
from pipeline.video.ffmpeg.painter import Painter
from pipeline.video.ffmpeg.translation import translate_av_errors
from pipeline.video.fragments import leaves_rest
from pipeline.video.harvest import Harvest
from pipeline.video.holes import holds_hole
from pipeline.video.programs import count_videos
from pipeline.video.references import Referred, referred_to
from pipeline.video.wire import NO_STAMP, Header, Mark, Run

_PACKETS_PER_REPORT = 100


def import_all() -> None:
    """What av imports when it first needs it: in a child no module can be opened any more."""
    for module in walk_packages(av.__path__, "av."):
        if module.name not in ("av.__main__", "av.datasets"):
            import_module(module.name)


class VideoFile:
    """One open file: `scan` tells what is in it, `frames` decodes what is wanted of it."""

    def __init__(
        self, fd: int, *, demuxer: str, max_pixels: int, max_packets: int, threads: int
    ) -> None:
        self._fd = fd
        self._max_packets = max_packets
        self._video = OpenedVideo(fd, demuxer=demuxer, max_pixels=max_pixels, threads=threads)
        self._painter = Painter(margins_of(fd, demuxer, index=self._video.track))
        self._marks = bytearray()

    def scan(self) -> tuple[Header, array[int], bytearray]:
        """Read every packet, decode only up to the first frame.

        Returns the header, and of all packets, in decoding order, stamps and marks.
        """
        if self._video.demuxer == "mov":
            require_one_codec(self._fd, index=self._video.track)
        if self._video.demuxer == "mpegts":
            num_videos = count_videos(self._fd, pid=self._video.stream.id)
            self._video.num_videos = max(self._video.num_videos, num_videos)
        with translate_av_errors(is_cut=self._video.is_cut):
            index, first = index_packets(self._video, max_packets=self._max_packets)
            self._marks = index.marks
            if not self._painter.margins.fits(first.width, first.height):
                self._painter = Painter(Margins())
            header = header_of(self._video, index, first, self._painter.margins)
            if leaves_bits(self._video, first):
                self.allow_left_bits(True)
                header = replace(header, leaves_bits=True)
        if self._video.demuxer == "mov" and not self._video.is_cut:
            counts = Counter(index.marks)  # there are few kinds of marks, and many packets
            num_shown = sum(counts[mark] for mark in counts if not mark & Mark.DISCARD)
            if leaves_rest(self._fd, track=self._video.stream.id, num_shown=num_shown):
                header = replace(header, flags=(*header.flags, "rest_unread"))
        return header, index.stamps, index.marks

    def coded_order(self) -> tuple[array[int], bytearray]:
        """As measure, of pictures whole, by their headers; none if these do not say.

        Refused is what of a few packets cannot be read.
        """
        order_of = coded_order(*self._video.codec)
        is_unread = bytearray(len(self._marks))
        if order_of is None or any(mark & (Mark.HIDDEN | Mark.CORRUPT) for mark in self._marks):
            return array("q"), is_unread
        self._video.rewind()
        with translate_av_errors():
            packets = zip(self._video.packets(), self._marks, strict=False)
            told = order_of((memoryview(packet), bool(mark & Mark.KEY)) for packet, mark in packets)
        if told is None:
            return array("q"), is_unread
        for number in told.unread:
            is_unread[number] = 1
        return array("q", told.shown), is_unread

    def measure(self, report: Callable[[], None]) -> tuple[array[int], bytearray]:
        """Decode every packet. Calls `report` now and then: this may take long.

        Returns the packet's number for each picture that comes out, in the order of output, and for
        each packet whether the decoder refused it, or did not draw it whole.
        """
        outputs, is_refused = array("q"), bytearray(len(self._marks))
        # One frame at a time, or a refusal could not be told from its neighbours'.
        self._video.reopen(thread_type="SLICE", skip_loop_filter="all")
        holds = holds_hole(*self._video.codec)
        with translate_av_errors():
            for number, packet in zip(count(), self._video.packets(), strict=False):
                if number >= len(self._marks):
                    break
                is_refused[number] = bool(self._marks[number] & Mark.UNENDED) or (
                    holds is not None and holds(memoryview(packet))
                )
                packet = _tagged(packet, number)
                try:
                    frames = self._video.context.decode(packet)
                except MemoryError:
                    raise
                except (FFmpegError, ValueError):
                    frames, is_refused[number] = [], 1
                for frame in frames:
                    if frame.pts is not None:
                        outputs.append(frame.pts)
                        is_refused[frame.pts] |= frame.is_corrupt
                if number % _PACKETS_PER_REPORT == 0:
                    report()
            for frame in self._video.decode(None):
                # Some decoders end with their last picture once more, under a packet without one.
                if frame.pts is not None and not self._marks[frame.pts] & Mark.HIDDEN:
                    outputs.append(frame.pts)
        return outputs, is_refused

    def use_threads(self, count: int) -> None:
        """Decode with so many threads from here on; a decoder has to be opened anew for that."""
        self._video.use_threads(count)

    def allow_left_bits(self, may_leave_bits: bool) -> None:
        """Whether bits behind the last block of a picture are no damage, as a scan told."""
        self._video.allow_left_bits(may_leave_bits)

    def frames(self, run: Run, *, may_skip: bool) -> Iterator[VideoFrame | None]:
        """Decode one run: for each wanted packet, in order, its frame, or None if it is damaged."""
        harvest: Harvest[VideoFrame] = Harvest(run.wanted, num_threads=self._video.threads)
        with translate_av_errors():
            for number, frame in self._run(run, harvest, may_skip=may_skip):
                if number is not None and frame is not None:
                    harvest.take(number, frame)
                for picture in harvest.settled():
                    if picture is None:
                        self._video.require_no_giant()
                    yield picture
                if harvest.is_done:
                    return
        harvest.drain()
        yield from self._settled_last(run, harvest, may_skip=may_skip)

    def _settled_last(
        self, run: Run, harvest: Harvest[VideoFrame], *, may_skip: bool
    ) -> Iterator[VideoFrame | None]:
        """What the decoder gave in the end. Where one is missing it is asked on one thread again.

        One thread complains of a packet when it is fed; several hold complaints back, as they do
        pictures, and behind the first of them PyAV takes no more of either.
        """
        for number, picture in zip(harvest.pending, harvest.settled(), strict=True):
            if picture is None and self._video.threads > 1:
                threads = self._video.threads
                self._video.use_threads(1)
                yield from self.frames(run.from_picture(number), may_skip=may_skip)
                self._video.use_threads(threads)
                return
            if picture is None:
                self._video.require_no_giant()
            yield picture

    def _run(
        self, run: Run, harvest: Harvest[VideoFrame], *, may_skip: bool
    ) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """Decode from the run's first packet up to its last wanted one, and drain the decoder.

        Frames nothing refers to are skipped unless wanted: the others come out bit-equal.
        """
        packets = self._video.packets_from(run)
        context = self._video.context  # of the file as it may have been opened anew
        # Two fields share an interlaced frame. dav1d reads the setting once, when it is opened.
        may_skip = may_skip and context.name in SKIPPING_DECODERS and not self._video.is_interlaced
        referred, holds = referred_to(*self._video.codec), holds_hole(*self._video.codec)
        unfed = dict(zip(run.wanted, run.stamps, strict=True))
        keys, losses, silent, unended = map(
            frozenset, (run.keys, run.losses, run.silent, run.unended)
        )
        latest = NO_STAMP
        for number, packet in packets:
            stamp = NO_STAMP if packet.pts is None else packet.pts
            if unfed.get(number, stamp) != stamp:
                break  # this is another packet: the demuxer lost count, or a seek did
            is_key, is_silent = number in keys, number in silent
            is_referred_to = (
                None if is_key or is_silent else _is_referred_to(packet, latest, referred)
            )
            # What nobody wants and nothing refers to may have holes: they are not looked for.
            is_holed = (number in unfed or is_referred_to is not False) and (
                number in unended or (holds is not None and holds(memoryview(packet)))
            )
            harvest.feed(
                number,
                stamp=stamp,
                is_key=is_key,
                is_behind_loss=number in losses,
                # A hidden picture is there for others' sake.
                is_referred_to=is_holed if is_silent else is_referred_to,
                is_holed=is_holed,
            )
            latest = stamp if is_key else max(latest, stamp)
            if may_skip:
                context.skip_frame = "DEFAULT" if number in unfed else "NONREF"
            for frame in self._video.decode(_tagged(packet, number), on_refusal=harvest.refuse):
                yield frame.pts, frame
            unfed.pop(number, None)
            if not unfed and number + 1 not in silent:  # it may be the last picture's second field
                break
        for frame in self._video.decode(None, on_refusal=harvest.refuse):
            yield frame.pts, frame
        context.flush_buffers()

    def rgb(self, frame: VideoFrame, *, width: int, height: int) -> tuple[memoryview, int]:
        """What is shown of the frame as RGB24, and the bytes from row to row."""
        return self._painter.rgb(frame, width=width, height=height)


def _is_referred_to(
    packet: Packet[VideoStream], latest: int, referred: Referred | None
) -> bool | None:
    """Whether other pictures refer to this one; None if nobody knows.

    latest: stamp. What is shown before something decoded earlier is most likely such as no
    other refers to, where its header cannot be read.
    """
    if referred is None:
        return None
    known = referred(memoryview(packet))
    return not (packet.pts is not None and packet.pts < latest) if known is None else known


def _tagged(packet: Packet[VideoStream], number: int) -> Packet[VideoStream]:
    """The packet with its number for a stamp: the decoder hands it on to the picture.

    Decoders drop the pictures of discarded packets, and then nobody knows whether they were whole.
    """
    if packet.is_discard:
        # One of a size has room behind it, which decoders read; one made of bytes has not.
        kept: Packet[VideoStream] = Packet(packet.size)  # type: ignore[assignment]
        kept.update(bytes(packet))
        kept.is_keyframe = packet.is_keyframe
        for side_data in packet.iter_sidedata():
            kept.set_sidedata(side_data)
        packet = kept
    packet.pts = number
    return packet
