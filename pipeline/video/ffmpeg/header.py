"""What the header of a video says, as its first frame completes it."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from struct import unpack
from typing import cast

import av
from av.buffer import Buffer
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Stream
from av.video.frame import VideoFrame

from pipeline.video.cropping import Margins
from pipeline.video.ffmpeg.codecs import NOMINAL_FPS, RAW_DEMUXERS, STILL_DEMUXERS
from pipeline.video.ffmpeg.opened_video import OpenedVideo
from pipeline.video.ffmpeg.packet_index import PacketIndex
from pipeline.video.ffmpeg.painter import is_guessed_hd
from pipeline.video.wire import Header

_MAX_SOUNDS = 4
_MAX_TAIL_PACKETS = 2000
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


def header_of(
    video: OpenedVideo, index: PacketIndex, first: VideoFrame, margins: Margins
) -> Header:
    """What the container says of the video, and its first frame."""
    stream, context = video.stream, video.context
    time_base, rate = video.time_base, _rate(video)
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
        num_packets=len(index.marks),
        reorder_depth=context.reorder_depth,
        offset=_offset(video),
        last_duration=index.last_duration,
        file_end_s=_file_end_s(video),
        declared_frames=max(0, stream.frames),
        declared_duration_s=_declared_duration_s(video),
        is_cut=video.is_cut,
        leaves_bits=False,
        is_still=video.demuxer in STILL_DEMUXERS,
        flags=tuple(_flags(video, first)),
    )


def _rate(video: OpenedVideo) -> Fraction:
    """Frames a second: what the stream itself says where its container has no times."""
    stream = video.stream
    own = video.context.framerate if video.demuxer in RAW_DEMUXERS else None
    return own or stream.average_rate or stream.guessed_rate or Fraction(NOMINAL_FPS)


def _offset(video: OpenedVideo) -> int:
    """From the file's start to that of its video, in time_base."""
    start, file_start = video.stream.start_time, video.container.start_time
    if start is None or file_start is None:
        return 0
    return max(0, start - round(Fraction(file_start, av.time_base) / video.time_base))


def _file_end_s(video: OpenedVideo) -> float:
    """When the sound ends, from the file's start; 0 where there is none that is known."""
    container = video.container
    sounds = [stream for stream in container.streams if stream.type == "audio"]
    end_s = 0.0
    for stream in sounds[:_MAX_SOUNDS]:
        end_s = max(end_s, _last_end_s(container, stream))
    return max(0.0, end_s - (container.start_time or 0) / av.time_base)


def _declared_duration_s(video: OpenedVideo) -> float:
    stream = video.stream
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    container = video.container
    return (container.duration or 0) / av.time_base


def _flags(video: OpenedVideo, first: VideoFrame) -> Iterator[str]:
    if video.num_videos > 1:
        yield "multi_stream"
    if first.color_trc in _HDR_TRANSFERS:
        yield "hdr_shown_as_sdr"  # its numbers are taken as they are: pale, but all there
    if is_guessed_hd(first):
        yield "colour_guessed"
    if video.is_interlaced or first.interlaced_frame:
        yield "interlaced"


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
