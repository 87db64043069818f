"""An open file: its packets from any keyframe on, and the decoder of one video track."""

from __future__ import annotations  # av.Packet is generic to the type checker only

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, islice

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.errors import BadInput, FailureCode
from pipeline.video.ffmpeg.codecs import (
    NOMINAL_FPS,
    RAW_DEMUXERS,
    STILL_CODECS,
    STILL_DEMUXERS,
    VIDEO_CODECS,
)
from pipeline.video.ffmpeg.descriptor import Descriptor
from pipeline.video.ffmpeg.translation import translate_av_errors
from pipeline.video.sniff import ends_early
from pipeline.video.wire import FROM_START, Run

READ_BYTES = 1 << 18
_BACK_OFF_S = (0, 2, 20)


class OpenedVideo:
    """One video track of an open file, and whatever its decoder has refused so far.

    stream and container are others after each reopening.
    """

    container: InputContainer
    stream: VideoStream

    def __init__(self, fd: int, *, demuxer: str, max_pixels: int, threads: int) -> None:
        self.demuxer = demuxer
        self.is_cut = ends_early(fd, demuxer)
        self.num_videos = 0
        self.threads = threads
        self._fd = fd
        self._max_pixels = max_pixels
        self._has_decoded = self._has_refused = False
        self._may_leave_bits = False
        self._open()

    @property
    def context(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def codec(self) -> tuple[str, bytes]:
        """Its name, and what it needs to be known before the first packet."""
        return self.context.codec.canonical_name, bytes(self.context.extradata or b"")

    @property
    def track(self) -> int:
        """Which of the file's video tracks this is."""
        videos = self.container.streams.video
        return [stream.index for stream in videos].index(self.stream.index)

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base or Fraction(1, NOMINAL_FPS)

    @property
    def is_interlaced(self) -> bool:
        return self.context.field_order > 1  # 0 is unknown, 1 progressive

    @property
    def tells_left_bits(self) -> bool:
        """Whether its decoder complains of bits behind the last block of a picture."""
        return self.context.codec.canonical_name == "h264" and not self._may_leave_bits

    def allow_left_bits(self, may_leave_bits: bool) -> None:
        """Take them for no damage from here on, or do; the decoder is opened anew for that."""
        if may_leave_bits != self._may_leave_bits:
            self._may_leave_bits = may_leave_bits
            self.reopen()

    def reopen(self, *, thread_type: str = "AUTO", **decoder_options: str) -> None:
        self.container.close()
        self._open(thread_type=thread_type, **decoder_options)

    def rewind(self) -> None:
        # A fresh open is right for every container; seeking to zero is not.
        if not self._is_at_start:
            self.reopen()

    def use_threads(self, count: int) -> None:
        """Decode with so many threads from here on; a decoder has to be opened anew for that."""
        if count != self.threads:
            self.threads = count
            self.reopen()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Every packet of the stream from where the file stands."""
        self._is_at_start = False
        packets = self._demuxed()
        return map(_unstamped, packets) if self.demuxer in RAW_DEMUXERS else packets

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        """What the demuxer gives; streams may join later, as sound of a broadcast does.

        PyAV wants to drain them in the end, and does not know them.
        """
        with suppress(IndexError):
            for packet in self.container.demux(self.stream):
                if packet.size:  # the last one asks decoders to drain
                    yield packet

    def packets_from(self, run: Run) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Every packet and its number from the run's first on, by seeking or from the start."""
        if run.key == FROM_START:
            self.rewind()
            return enumerate(self.packets())
        for back_s in _BACK_OFF_S:
            self._is_at_start = False
            target = run.key_stamp - int(back_s / self.time_base)
            try:
                self.container.seek(target, stream=self.stream)
            except FFmpegError:
                break  # the container cannot seek
            if packets := _skip_to(self.packets(), run.key_stamp):
                return enumerate(packets, run.key)
        self.rewind()
        return islice(enumerate(self.packets()), run.key, None)

    def decode(
        self, packet: Packet[VideoStream] | None, on_refusal: Callable[[], None] | None = None
    ) -> list[VideoFrame]:
        """Decode one packet, or drain; a packet that cannot be decoded has no frames."""
        try:
            frames = self.context.decode(packet)
        except MemoryError:
            raise
        except (FFmpegError, ValueError) as error:
            context = self.context
            is_too_large = context.width * context.height > self._max_pixels
            # An invalid argument is how a decoder that does not know its size yet refuses one.
            is_unknown = not self._has_decoded and isinstance(error, ArgumentError)
            self._has_refused |= is_too_large or is_unknown
            if on_refusal is not None:
                on_refusal()
            return []
        self._has_decoded |= bool(frames)
        return frames

    def require_no_giant(self) -> None:
        """Where a frame is missing, say so if pictures were refused for their size."""
        if self._has_refused:
            raise BadInput(
                FailureCode.TOO_MANY_PIXELS, f"a frame has more than {self._max_pixels} px"
            )

    def _open(self, *, thread_type: str = "AUTO", **decoder_options: str) -> None:
        with translate_av_errors(is_cut=self.is_cut):
            self.container = av.open(
                Descriptor(self._fd),
                "r",
                format=self.demuxer,
                # find_stream_info decodes too: nothing else is opened, nothing huge.
                options={
                    "protocol_whitelist": "",
                    "format_whitelist": self.demuxer,
                    "max_pixels": str(self._max_pixels),
                },
                metadata_errors="replace",
                buffer_size=READ_BYTES,
            )
            self.stream, self.num_videos = _choose_stream(self.container)
            self._check_codec()
            for stream in self.container.streams:
                if stream.index != self.stream.index:
                    stream.discard = Discard.all
            context = self.context
            strictness = {"err_detect": "aggressive"} if self.tells_left_bits else {}
            context.options = {"max_pixels": str(self._max_pixels), **strictness, **decoder_options}
            context.thread_count = self.threads
            context.thread_type = thread_type
        self._is_at_start = True

    def _check_codec(self) -> None:
        stream = self.stream
        if stream.codec_context is None:
            raise BadInput(FailureCode.UNSUPPORTED_CODEC, "there is no decoder for it")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > self._max_pixels:
            raise BadInput(
                FailureCode.TOO_MANY_PIXELS,
                f"{width}x{height} is {width * height} px; limit {self._max_pixels}",
            )
        codec = stream.codec_context.codec.canonical_name
        if codec not in (STILL_CODECS if self.demuxer in STILL_DEMUXERS else VIDEO_CODECS):
            raise BadInput(FailureCode.UNSUPPORTED_CODEC, f"codec {codec[:32]} is not read")


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
        if packet.pts == key:
            return chain((packet,), packets)
        if packet.is_keyframe and packet.pts is not None and packet.pts > key:
            return None
    return None


def _unstamped(packet: Packet[VideoStream]) -> Packet[VideoStream]:
    packet.pts = None  # a parser's guess: there are none
    return packet
