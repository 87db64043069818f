"""The only file that talks to FFmpeg: header, packet index and wanted frames of one open file.

Runs in the decoding child only. Every av exception is translated here, once, to BadInput.
"""

from __future__ import annotations  # av.Packet and array are generic to the type checker only

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, count, islice
from os import SEEK_CUR, SEEK_END, fstat, pread
from struct import unpack
from typing import cast

import av
from av.buffer import Buffer
from av.container import InputContainer
from av.error import ArgumentError, DecoderNotFoundError, FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from pipeline.errors import BadInput, FailureCode
from pipeline.video.cropping import Margins, margins_of
from pipeline.video.harvest import Harvest
from pipeline.video.hidden import hides_picture
from pipeline.video.sniff import ends_early
from pipeline.video.wire import FROM_START, NO_STAMP, Header, Mark, Run

VIDEO_CODECS = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
        *("prores", "mjpeg", "ffv1", "h263", "dvvideo"),
        *("flv1", "vp6f", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4v3", "theora"),
    }
)
# Their frames to which nothing refers can be left out packet by packet.
SKIPPING_DECODERS = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
STILL_CODECS = frozenset({"png", "mjpeg"})
STILL_DEMUXERS = frozenset({"png_pipe", "jpeg_pipe"})
NOMINAL_FPS = 25
READ_BYTES = 1 << 18
RAW_DEMUXERS = frozenset({"h264", "hevc"})
_PACKETS_TO_FIRST_FRAME = 1000
_PACKETS_PER_REPORT = 100
_KEY_OFFSETS = {"mov": 0, "avi": 8}  # from where the index points to where packets begin
_MAX_SOUNDS = 4
_MAX_TAIL_PACKETS = 2000
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720
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
        self._marks = bytearray()
        self._reformatter = VideoReformatter()
        self._weaver, self._weaver_kind = Graph(), (0, 0, "")
        self._container: InputContainer | None = None
        self._open()
        self._margins = margins_of(fd, demuxer, index=self._video_index())

    def _video_index(self) -> int:
        """Which of the file's video tracks this is."""
        videos = self._require_container().streams.video
        return [stream.index for stream in videos].index(self._stream.index)

    def _open(self, *, thread_type: str = "AUTO", **decoder_options: str) -> None:
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
            context.options = {"max_pixels": str(self._max_pixels), **decoder_options}
            context.thread_count = self._threads
            context.thread_type = thread_type
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

        Returns the header, and of all packets, in decoding order, stamps and marks.
        """
        context = self._stream.codec_context
        hides = hides_picture(context.codec.canonical_name, bytes(context.extradata or b""))
        stamps, marks = array("q"), bytearray()
        keys = self._indexed_keys()
        first: VideoFrame | None = None
        last_stamp, last_duration = NO_STAMP, 0
        with translate_av_errors(is_cut=self.is_cut):
            for packet in self._packets():
                if len(stamps) >= self._max_packets:
                    raise BadInput(FailureCode.TOO_MANY_FRAMES, f"limit {self._max_packets}")
                mark = packet.is_keyframe | packet.is_discard << 1 | packet.is_corrupt << 3
                if packet.pos in keys:
                    mark |= Mark.KEY
                if mark & Mark.KEY and packet.has_sidedata("encryption_info"):
                    raise BadInput(FailureCode.ENCRYPTED, "the video is encrypted")
                if hides is not None and hides(memoryview(packet)):
                    mark |= Mark.HIDDEN
                stamp = NO_STAMP if packet.pts is None else packet.pts
                if stamp >= last_stamp and not mark & Mark.DISCARD:
                    last_stamp, last_duration = stamp, packet.duration or 0
                stamps.append(stamp)
                marks.append(mark)
                if first is None and len(stamps) <= _PACKETS_TO_FIRST_FRAME:
                    first = next(iter(self._decode(packet)), None)
            if first is None:
                first = next(iter(self._decode(None)), None)
            if first is None:
                self._require_no_giant()
                code = FailureCode.TRUNCATED if self.is_cut else FailureCode.NOT_DECODABLE
                raise BadInput(code, "no frame of it can be decoded")
            self._mark_cued(stamps, marks)
            self._marks = marks
            if not self._margins.fits(first.width, first.height):
                self._margins = Margins()
            return self._header(first, len(stamps), last_duration), stamps, marks

    def _indexed_keys(self) -> frozenset[int]:
        """Where keyframes lie by the container's table: broken ones look like none."""
        if self._demuxer not in _KEY_OFFSETS:
            return frozenset()
        offset = _KEY_OFFSETS[self._demuxer]
        entries = self._stream.index_entries
        return frozenset(entry.pos + offset for entry in entries if entry.is_keyframe)

    def _mark_cued(self, stamps: array[int], marks: bytearray) -> None:
        """The same for Matroska, whose list is whole when all blocks are read."""
        if self._demuxer == "matroska":
            cues = {entry.timestamp for entry in self._stream.index_entries if entry.is_keyframe}
            for number, stamp in enumerate(stamps):
                if stamp in cues:
                    marks[number] |= Mark.KEY

    def measure(self, report: Callable[[], None]) -> tuple[array[int], bytearray]:
        """Decode every packet. Calls `report` now and then: this may take long.

        Returns the packet's number for each picture that comes out, in the order of output, and for
        each packet whether the decoder refused it or drew it only in part.
        """
        outputs, is_refused = array("q"), bytearray(len(self._marks))
        # One frame at a time, or a refusal could not be told from its neighbours'.
        self._open(thread_type="SLICE", skip_loop_filter="all")
        with translate_av_errors():
            for number, packet in zip(count(), self._packets(), strict=False):
                if number >= len(self._marks):
                    break
                packet = _tagged(packet, number)
                try:
                    frames = self._stream.codec_context.decode(packet)
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
            for frame in self._decode(None):
                # Some decoders end with their last picture once more, under a packet without one.
                if frame.pts is not None and not self._marks[frame.pts] & Mark.HIDDEN:
                    outputs.append(frame.pts)
        return outputs, is_refused

    def _header(self, first: VideoFrame, num_packets: int, last_duration: int) -> Header:
        stream, context, margins = self._stream, self._stream.codec_context, self._margins
        time_base = stream.time_base or Fraction(1, NOMINAL_FPS)
        rate = self._rate()
        matrix = first.side_data.get("DISPLAYMATRIX")
        sar = stream.sample_aspect_ratio or Fraction(1)
        return Header(
            codec=context.codec.canonical_name,
            pixel_format=first.format.name,
            coded_width=first.width - margins.left - margins.right,
            coded_height=first.height - margins.top - margins.bottom,
            row_width=first.width,
            matrix=unpack("9i", bytes(cast(Buffer, matrix))) if matrix is not None else (),
            sar_num=sar.numerator,
            sar_den=sar.denominator,
            time_base_num=time_base.numerator,
            time_base_den=time_base.denominator,
            rate_num=rate.numerator,
            rate_den=rate.denominator,
            num_packets=num_packets,
            reorder_depth=context.reorder_depth,
            offset=self._offset(time_base),
            last_duration=last_duration,
            file_end_s=self._file_end_s(),
            declared_frames=max(0, stream.frames),
            declared_duration_s=self._declared_duration_s(),
            is_cut=self.is_cut,
            is_still=self._demuxer in STILL_DEMUXERS,
            flags=tuple(self._flags(first)),
        )

    def _rate(self) -> Fraction:
        """Frames a second: what the stream itself says where its container has no times."""
        stream = self._stream
        own = stream.codec_context.framerate if self._demuxer in RAW_DEMUXERS else None
        return own or stream.average_rate or stream.guessed_rate or Fraction(NOMINAL_FPS)

    def _offset(self, time_base: Fraction) -> int:
        """From the file's start to that of its video, in time_base."""
        start, file_start = self._stream.start_time, self._require_container().start_time
        if start is None or file_start is None:
            return 0
        return max(0, start - round(Fraction(file_start, av.time_base) / time_base))

    def _file_end_s(self) -> float:
        """When the sound ends, from the file's start; 0 where there is none that is known."""
        container = self._require_container()
        sounds = [stream for stream in container.streams if stream.type == "audio"]
        end_s = 0.0
        for stream in sounds[:_MAX_SOUNDS]:
            end_s = max(end_s, _last_end_s(container, stream))
        return max(0.0, end_s - (container.start_time or 0) / av.time_base)

    def _declared_duration_s(self) -> float:
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        container = self._require_container()
        return (container.duration or 0) / av.time_base

    def _flags(self, first: VideoFrame) -> Iterator[str]:
        if self._num_videos > 1:
            yield "multi_stream"
        if first.color_trc in _HDR_TRANSFERS:
            yield "hdr_shown_as_sdr"  # its numbers are taken as they are: pale, but all there
        if _is_guessed_hd(first):
            yield "colour_guessed"
        if self._is_interlaced() or first.interlaced_frame:
            yield "interlaced"

    def _is_interlaced(self) -> bool:
        return self._stream.codec_context.field_order > 1  # 0 is unknown, 1 progressive

    def use_threads(self, count: int) -> None:
        """Decode with so many threads from here on; a decoder has to be opened anew for that."""
        if count != self._threads:
            self._threads = count
            self._open()

    def frames(self, run: Run, *, may_skip: bool) -> Iterator[VideoFrame | None]:
        """Decode one run: for each wanted packet, in order, its frame, or None if it is damaged."""
        harvest: Harvest[VideoFrame] = Harvest(run.wanted, num_threads=self._threads)
        with translate_av_errors():
            for number, frame in self._run(run, harvest, may_skip=may_skip):
                if number is not None and frame is not None:
                    harvest.take(number, frame)
                for picture in harvest.settled():
                    if picture is None:
                        self._require_no_giant()
                    yield picture
                if harvest.is_done:
                    return
        harvest.drain()
        for picture in harvest.settled():
            if picture is None:
                self._require_no_giant()
            yield picture

    def _run(
        self, run: Run, harvest: Harvest[VideoFrame], *, may_skip: bool
    ) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """Decode from the run's first packet up to its last wanted one, and drain the decoder.

        Frames nothing refers to are skipped unless wanted: the others come out bit-equal.
        """
        context = self._stream.codec_context
        # Two fields share an interlaced frame. dav1d reads the setting once, when it is opened.
        may_skip = may_skip and context.name in SKIPPING_DECODERS and not self._is_interlaced()
        unfed = dict(zip(run.wanted, run.stamps, strict=True))
        keys = frozenset(run.keys)
        for number, packet in self._packets_from(run):
            stamp = NO_STAMP if packet.pts is None else packet.pts
            if unfed.get(number, stamp) != stamp:
                break  # this is another packet: the demuxer lost count, or a seek did
            harvest.feed(number, stamp=stamp, is_key=number in keys)
            if may_skip:
                context.skip_frame = "DEFAULT" if number in unfed else "NONREF"
            for frame in self._decode(_tagged(packet, number)):
                yield frame.pts, frame
            unfed.pop(number, None)
            if not unfed:
                break
        for frame in self._decode(None):
            yield frame.pts, frame
        context.flush_buffers()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Every packet of the stream from where the file stands."""
        self._is_at_start = False
        for packet in self._require_container().demux(self._stream):
            if packet.size:  # the last one is empty: it asks decoders to drain
                yield packet

    def _packets_from(self, run: Run) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Every packet and its number from the run's first on, by seeking or from the start."""
        if run.key == FROM_START:
            self._rewind()
            return enumerate(self._packets())
        time_base = self._stream.time_base or Fraction(1, NOMINAL_FPS)
        for back_s in _BACK_OFF_S:
            self._is_at_start = False
            target = run.key_stamp - int(back_s / time_base)
            try:
                self._require_container().seek(target, stream=self._stream)
            except FFmpegError:
                break  # the container cannot seek
            if packets := _skip_to(self._packets(), run.key_stamp):
                return enumerate(packets, run.key)
        self._rewind()
        return islice(enumerate(self._packets()), run.key, None)

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
        """What is shown of the frame as RGB24, and the bytes from row to row."""
        margins = self._margins
        whole_width = width + margins.left + margins.right
        whole_height = height + margins.top + margins.bottom
        try:
            if frame.interlaced_frame:
                frame = self._progressive(frame)
            rgb = self._reformatter.reformat(
                frame,
                whole_width,
                whole_height,
                "rgb24",
                src_colorspace=Colorspace.ITU709 if _is_guessed_hd(frame) else None,
                threads=1,
            )
        except (FFmpegError, ValueError) as error:
            raise BadInput(
                FailureCode.UNSUPPORTED_PIXEL_FORMAT, f"{frame.format.name[:32]} has no RGB"
            ) from error
        plane = rgb.planes[0]
        start = margins.top * plane.line_size + 3 * margins.left
        return memoryview(plane)[start:], plane.line_size

    def _progressive(self, frame: VideoFrame) -> VideoFrame:
        """The same picture, said to be no pair of fields: as FFmpeg's program, which converts the
        colours of whole pictures.
        """
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._weaver_kind:
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1, NOMINAL_FPS),
            )
            filters = source, graph.add("setfield", "prog"), graph.add("buffersink")
            graph.link_nodes(*filters).configure()
            self._weaver, self._weaver_kind = graph, kind
        self._weaver.push(frame)
        woven = self._weaver.pull()
        if not isinstance(woven, VideoFrame):
            raise RuntimeError("a filter of pictures gives pictures")
        return woven

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


def _is_guessed_hd(frame: VideoFrame) -> bool:
    """Tell whether its colours are not said: players take BT.709 from 720 lines on, else BT.601."""
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0"))
    return is_yuv and frame.colorspace == _UNSPECIFIED and frame.height >= _HD_LINES


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


def _last_end_s(container: InputContainer, sound: Stream) -> float:
    """When the last packet of this stream ends, by its stamp; 0 if it cannot be found.

    A header may claim any length, so the end is looked at.
    """
    time_base, claimed_us = sound.time_base, container.duration
    if not time_base or not claimed_us:
        return 0.0
    for stream in container.streams:
        stream.discard = Discard.default if stream.index == sound.index else Discard.all
    end_s = 0.0
    try:
        container.seek(claimed_us + (container.start_time or 0), backward=True)
        for packet in islice(container.demux(sound), _MAX_TAIL_PACKETS):
            if packet.pts is not None and packet.size:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * time_base))
    except FFmpegError:
        return 0.0
    return end_s


def _tagged(packet: Packet[VideoStream], number: int) -> Packet[VideoStream]:
    """The packet with its number for a stamp: the decoder hands it on to the picture.

    Decoders drop the pictures of discarded packets, and then nobody knows whether they were whole.
    """
    if packet.is_discard:
        kept: Packet[VideoStream] = Packet(bytes(packet))  # type: ignore[assignment]
        kept.is_keyframe = packet.is_keyframe
        for side_data in packet.iter_sidedata():
            kept.set_sidedata(side_data)
        packet = kept
    packet.pts = number
    return packet
