"""The only file that talks to FFmpeg: header, packet index and wanted frames of one open file.

Runs in the decoding child only. Every av exception is translated here, once, to BadInput.
"""

from __future__ import annotations  # av.Packet and array are generic to the type checker only

from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from os import SEEK_CUR, SEEK_END, fstat, pread
from struct import unpack
from typing import cast

import av
from av.buffer import Buffer
from av.container import InputContainer
from av.error import ArgumentError, DecoderNotFoundError, FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from pipeline.errors import BadInput, FailureCode
from pipeline.video.packet_index import PacketIndex
from pipeline.video.sniff import ends_early
from pipeline.video.wire import FROM_START, Header, Run

VIDEO_CODECS = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
        *("prores", "mjpeg", "ffv1", "h263", "dvvideo"),
    }
)
# Their frames to which nothing refers can be left out packet by packet.
SKIPPING_DECODERS = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
STILL_CODECS = frozenset({"png", "mjpeg"})
STILL_DEMUXERS = frozenset({"png_pipe", "jpeg_pipe"})
NOMINAL_FPS = 25
READ_BYTES = 1 << 18
_PACKETS_TO_FIRST_FRAME = 1000
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_BACK_OFF_S = (0, 2, 20)


class File:
    """A descriptor as FFmpeg's input, with a position of its own: children share descriptors."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._position = 0

    def read(self, num_bytes: int) -> bytes:
        data = pread(self.fd, num_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        start = {SEEK_CUR: self._position, SEEK_END: fstat(self.fd).st_size}.get(whence, 0)
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def translate_av_errors(*, is_cut: bool = False) -> Iterator[None]:
    """Turn what av raises on bad files into BadInput; a file that ends early is truncated."""
    try:
        yield
    except MemoryError as error:
        raise BadInput(FailureCode.DECODE_MEMORY, "decoding ran out of memory") from error
    except DecoderNotFoundError as error:
        raise BadInput(FailureCode.UNSUPPORTED_CODEC, "there is no decoder for it") from error
    except (FFmpegError, EOFError, LookupError, ValueError) as error:  # the last two: PyAV's own
        if is_cut:
            raise BadInput(FailureCode.TRUNCATED, "the file ends before its header says") from error
        raise BadInput(FailureCode.NOT_DECODABLE, "FFmpeg cannot read it") from error


class VideoFile:
    """One open file: `scan` tells what is in it, `frames` decodes what is wanted of it."""

    def __init__(
        self, fd: int, *, demuxer: str, max_pixels: int, max_packets: int, threads: int
    ) -> None:
        self._fd = fd
        self._demuxer = demuxer
        self._max_pixels = max_pixels
        self._max_packets = max_packets
        self._threads = threads
        self.is_cut = ends_early(fd, demuxer)
        self._has_refused = False
        self._reformatter = VideoReformatter()
        self._container: InputContainer | None = None
        self._open()

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
        with translate_av_errors(is_cut=self.is_cut):
            self._container = av.open(
                File(self._fd),
                "r",
                format=self._demuxer,
                # find_stream_info decodes too: nothing else is opened, nothing huge.
                options={
                    "protocol_whitelist": "",
                    "format_whitelist": self._demuxer,
                    "max_pixels": str(self._max_pixels),
                },
                metadata_errors="replace",
                buffer_size=READ_BYTES,
            )
            self._stream, self._num_videos = _choose_stream(self._container)
            self._check_codec()
            for stream in self._container.streams:
                if stream.index != self._stream.index:
                    stream.discard = Discard.all
            context = self._stream.codec_context
            context.options = {"max_pixels": str(self._max_pixels)}
            context.thread_count = self._threads
            context.thread_type = "AUTO"
        self._is_at_start = True

    def _check_codec(self) -> None:
        stream = self._stream
        if stream.codec_context is None:
            raise BadInput(FailureCode.UNSUPPORTED_CODEC, "there is no decoder for it")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > self._max_pixels:
            raise BadInput(
                FailureCode.TOO_MANY_PIXELS,
                f"{width}x{height} is {width * height} px; limit {self._max_pixels}",
            )
        codec = stream.codec_context.codec.canonical_name
        if codec not in (STILL_CODECS if self._demuxer in STILL_DEMUXERS else VIDEO_CODECS):
            raise BadInput(FailureCode.UNSUPPORTED_CODEC, f"codec {codec[:32]} is not read")

    def scan(self) -> tuple[Header, array[int], bytearray]:
        """Read every packet, decode only up to the first frame.

        Returns the header, and of displayed frames, in decoding order, stamps and key marks.
        """
        # AVI stamps packets in decoding order: with reordered frames those are no times at all.
        codec = self._stream.codec_context.codec.canonical_name
        index = PacketIndex(is_counted=self._demuxer == "avi" and codec in ("h264", "hevc"))
        first: VideoFrame | None = None
        with translate_av_errors(is_cut=self.is_cut):
            for num_packets, packet in enumerate(self._packets()):
                if num_packets >= self._max_packets:
                    raise BadInput(FailureCode.TOO_MANY_FRAMES, f"limit {self._max_packets}")
                if packet.is_keyframe and packet.has_sidedata("encryption_info"):
                    raise BadInput(FailureCode.ENCRYPTED, "the video is encrypted")
                index.add(
                    packet.pts,
                    duration=packet.duration or 0,
                    is_key=packet.is_keyframe,
                    is_shown=not packet.is_discard,
                    is_whole=not packet.is_corrupt,
                )
                if first is None and num_packets < _PACKETS_TO_FIRST_FRAME:
                    first = next(iter(self._decode(packet)), None)
            if first is None:
                first = next(iter(self._decode(None)), None)
            index.close()
            if first is None or not index.stamps:
                self._require_no_giant()
                code = FailureCode.TRUNCATED if self.is_cut else FailureCode.NOT_DECODABLE
                raise BadInput(code, "no frame of it can be decoded")
            return self._header(index, first), index.stamps, index.is_key

    def _header(self, index: PacketIndex, first: VideoFrame) -> Header:
        stream, context = self._stream, self._stream.codec_context
        is_still = self._demuxer in STILL_DEMUXERS
        rate = stream.average_rate or stream.guessed_rate or Fraction(NOMINAL_FPS)
        time_base = 1 / rate if index.is_counted else stream.time_base or Fraction(1, NOMINAL_FPS)
        matrix = first.side_data.get("DISPLAYMATRIX")
        sar = stream.sample_aspect_ratio or Fraction(1)
        return Header(
            codec=context.codec.canonical_name,
            pixel_format=first.format.name,
            coded_width=first.width,
            coded_height=first.height,
            matrix=unpack("9i", bytes(cast(Buffer, matrix))) if matrix is not None else (),
            sar_num=sar.numerator,
            sar_den=sar.denominator,
            time_base_num=time_base.numerator,
            time_base_den=time_base.denominator,
            num_frames=1 if is_still else len(index.stamps),
            last_duration=1 if index.is_counted else index.last_duration,
            declared_frames=max(0, stream.frames),
            declared_duration_s=self._declared_duration_s(),
            is_counted=index.is_counted,
            is_cut=self.is_cut,
            is_still=is_still,
            flags=tuple(self._flags(index, first)),
        )

    def _declared_duration_s(self) -> float:
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        container = self._require_container()
        return (container.duration or 0) / av.time_base

    def _flags(self, index: PacketIndex, first: VideoFrame) -> Iterator[str]:
        if self._num_videos > 1:
            yield "multi_stream"
        if index.has_gaps:
            yield "no_timestamps"
        elif index.has_jumps:
            yield "nonmonotonic"
        if index.num_leading:
            yield "starts_without_keyframe"
        if first.color_trc in _HDR_TRANSFERS:
            yield "hdr_tonemapped_naively"
        if self._is_interlaced() or first.interlaced_frame:
            yield "interlaced"

    def _is_interlaced(self) -> bool:
        return self._stream.codec_context.field_order > 1  # 0 is unknown, 1 progressive

    def use_threads(self, count: int) -> None:
        """Decode with so many threads from here on; a decoder has to be opened anew for that."""
        if count != self._threads:
            self._threads = count
            self._open()

    def frames(self, run: Run, *, is_counted: bool) -> Iterator[VideoFrame | None]:
        """Decode one run: for each wanted stamp, in order, its frame, or None if it is damaged."""
        pending = deque(run.wanted)
        with translate_av_errors():
            for stamp, frame in self._run(run, is_counted=is_counted):
                while pending and pending[0] < stamp:
                    pending.popleft()
                    self._require_no_giant()
                    yield None
                if pending and pending[0] == stamp:
                    pending.popleft()
                    yield None if frame.is_corrupt else frame
                if not pending:
                    return
        for _ in pending:
            self._require_no_giant()
            yield None

    def _run(self, run: Run, *, is_counted: bool) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from the run's keyframe up to its last wanted packet, and drain the decoder.

        Frames nothing refers to are skipped unless wanted: the others come out bit-equal.
        """
        if is_counted:
            self._rewind()
            decoded = chain.from_iterable(map(self._decode, chain(self._packets(), (None,))))
            yield from enumerate(decoded)
            return
        context = self._stream.codec_context
        # Two fields share an interlaced frame. dav1d reads the setting once, when it is opened.
        may_skip = context.name in SKIPPING_DECODERS and not self._is_interlaced()
        unfed = set(run.wanted)
        for packet in self._packets_from(run.key):
            if may_skip:
                context.skip_frame = "DEFAULT" if packet.pts in unfed else "NONREF"
            yield from _stamped(self._decode(packet))
            unfed.discard(packet.pts)
            if not unfed:
                break
        yield from _stamped(self._decode(None))
        context.flush_buffers()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Every packet of the stream from where the file stands."""
        self._is_at_start = False
        for packet in self._require_container().demux(self._stream):
            if packet.size:  # the last one is empty: it asks decoders to drain
                yield packet

    def _packets_from(self, key: int) -> Iterator[Packet[VideoStream]]:
        """Every packet from the keyframe stamped `key` on, by seeking or else from the start."""
        if key == FROM_START:
            self._rewind()
            return self._packets()
        time_base = self._stream.time_base or Fraction(1, NOMINAL_FPS)
        for back_s in _BACK_OFF_S:
            self._is_at_start = False
            try:
                self._require_container().seek(key - int(back_s / time_base), stream=self._stream)
            except FFmpegError:
                break  # the container cannot seek
            if packets := _skip_to(self._packets(), key):
                return packets
        self._rewind()
        return _skip_to(self._packets(), key) or iter(())

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode one packet, or drain; a packet that cannot be decoded has no frames."""
        try:
            return self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except (FFmpegError, ValueError) as error:
            context = self._stream.codec_context
            is_too_large = context.width * context.height > self._max_pixels
            # An invalid argument is how a decoder that does not know its size yet refuses one.
            self._has_refused |= is_too_large or isinstance(error, ArgumentError)
            return []

    def _require_no_giant(self) -> None:
        """Where a frame is missing, say so if pictures were refused for their size."""
        if self._has_refused:
            raise BadInput(
                FailureCode.TOO_MANY_PIXELS, f"a frame has more than {self._max_pixels} px"
            )

    def rgb(self, frame: VideoFrame, *, width: int, height: int) -> tuple[memoryview, int]:
        """The frame as RGB24 and the bytes from row to row."""
        try:
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
        except (FFmpegError, ValueError) as error:
            raise BadInput(
                FailureCode.UNSUPPORTED_PIXEL_FORMAT, f"{frame.format.name[:32]} has no RGB"
            ) from error
        plane = rgb.planes[0]
        return memoryview(plane), plane.line_size

    def _rewind(self) -> None:
        # A fresh open is right for every container; seeking to zero is not.
        if not self._is_at_start:
            self._open()

    def _require_container(self) -> InputContainer:
        if self._container is None:
            raise RuntimeError("the container is not open")
        return self._container


def _choose_stream(container: InputContainer) -> tuple[VideoStream, int]:
    """FFmpeg's best video stream that is no cover picture, and how many there are."""
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not videos:
        raise BadInput(FailureCode.NO_VIDEO_STREAM, "there is no video stream in it")
    best = container.streams.best("video")
    return (best if isinstance(best, VideoStream) and best in videos else videos[0]), len(videos)


def _skip_to(
    packets: Iterator[Packet[VideoStream]], key: int
) -> Iterator[Packet[VideoStream]] | None:
    """The packets from the keyframe stamped `key` on; None when the file stands behind it."""
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            if packet.pts == key:
                return chain((packet,), packets)
            if packet.pts > key:
                return None
    return None


def _stamped(frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
    return ((frame.pts, frame) for frame in frames if frame.pts is not None)
