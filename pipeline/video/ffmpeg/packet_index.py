"""Every packet of a video: its stamp, and what the demuxer and its first bits say of it."""

from __future__ import annotations  # array is generic to the type checker only

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from av.index import IndexEntries, IndexEntry
from av.video.frame import VideoFrame

from pipeline.errors import BadInput, FailureCode
from pipeline.video.ffmpeg.codecs import LOSSY_DEMUXERS
from pipeline.video.ffmpeg.opened_video import OpenedVideo
from pipeline.video.fields import second_field
from pipeline.video.hidden import hides_picture, packs_pictures
from pipeline.video.holes import is_seldom, lacks_end
from pipeline.video.losses import misses_reference
from pipeline.video.wire import NO_STAMP, Mark

_PACKETS_TO_FIRST_FRAME = 1000
_KEY_OFFSETS = {"mov": 0, "avi": 8}  # from where the index points to where packets begin
# Plain numbers for what is done with every packet: flags of an enum take a microsecond each.
_KEY, _DISCARD, _CORRUPT = map(int, (Mark.KEY, Mark.DISCARD, Mark.CORRUPT))
_UNENDED = int(Mark.UNENDED)


@dataclass(slots=True)
class PacketIndex:
    """(P,) stamps and marks, in decoding order. last_duration: of the picture stamped last."""

    stamps: array[int] = field(default_factory=lambda: array("q"))
    marks: bytearray = field(default_factory=bytearray)
    last_duration: int = 0


def index_packets(video: OpenedVideo, *, max_packets: int) -> tuple[PacketIndex, VideoFrame]:
    """Read every packet, decode only up to the first frame, which is returned beside them.

    Raises BadInput where there is none, and for encrypted videos.
    """
    coded = video.codec
    hides, packs = hides_picture(*coded), packs_pictures(coded[0])
    misses = misses_reference(*coded) if video.demuxer in LOSSY_DEMUXERS else None
    lacks, is_second = lacks_end(coded[0]), second_field(*coded)
    looks = any(test is not None for test in (hides, packs, misses, lacks, is_second))
    index = PacketIndex()
    stamps, marks = index.stamps, index.marks
    places: list[int | None] = []
    seconds: list[int] = []  # fields of the picture before
    first: VideoFrame | None = None
    last_stamp = NO_STAMP
    for packet in video.packets():
        number = len(marks)
        if number >= max_packets:
            raise BadInput(FailureCode.TOO_MANY_FRAMES, f"limit {max_packets}")
        mark = packet.is_keyframe | packet.is_discard << 1 | packet.is_corrupt << 3
        if (mark & _KEY or not number) and packet.has_sidedata("encryption_info"):
            raise BadInput(FailureCode.ENCRYPTED, "the video is encrypted")
        if looks:
            if hides is not None and hides(memoryview(packet)):
                mark |= Mark.HIDDEN
            if packs is not None and packs(memoryview(packet)):
                mark |= Mark.PACKED
            if misses is not None and misses(memoryview(packet), bool(mark & _KEY)):
                mark |= Mark.BEHIND_LOSS
            if lacks is not None and lacks(memoryview(packet)):
                mark |= Mark.UNENDED
            if is_second is not None and is_second(memoryview(packet)):
                mark |= Mark.HIDDEN
                seconds.append(number)
        stamp = packet.pts
        if stamp is None:
            stamp = NO_STAMP
        if stamp >= last_stamp and not mark & _DISCARD:
            last_stamp, index.last_duration = stamp, packet.duration or 0
        stamps.append(stamp)
        marks.append(mark)
        places.append(packet.pos)
        if first is None and number < _PACKETS_TO_FIRST_FRAME:
            first = next(iter(video.decode(packet)), None)
    if first is None:
        first = next(iter(video.decode(None)), None)
    if first is None:
        video.require_no_giant()
        code = FailureCode.TRUNCATED if video.is_cut else FailureCode.NOT_DECODABLE
        raise BadInput(code, "no frame of it can be decoded")
    _mark_tabled(video, marks, places)
    _mark_cued(video, stamps, marks)
    _mark_losses(video.demuxer, marks)
    _unmark_filled(marks)
    for number in seconds:
        marks[number] &= ~_KEY
    return index, first


def _mark_tabled(video: OpenedVideo, marks: bytearray, places: list[int | None]) -> None:
    """Mark what is a keyframe by the container's table: broken ones look like none."""
    if video.demuxer in _KEY_OFFSETS:
        offset, entries = _KEY_OFFSETS[video.demuxer], video.stream.index_entries
        # Only what an edit list cuts away is out of order in the table.
        is_ordered = not any(mark & _DISCARD for mark in set(marks))
        keys = _keys_in_order(entries) if is_ordered else entries
        tabled = {entry.pos + offset for entry in keys if entry.is_keyframe}
        tabled -= {place for place, mark in zip(places, marks, strict=True) if mark & _KEY}
        if tabled:
            for number, place in enumerate(places):
                if place in tabled:
                    marks[number] |= _KEY


def _mark_cued(video: OpenedVideo, stamps: array[int], marks: bytearray) -> None:
    """The same for Matroska, whose list is whole when all blocks are read."""
    if video.demuxer == "matroska":
        cues = {entry.timestamp for entry in video.stream.index_entries if entry.is_keyframe}
        for number, stamp in enumerate(stamps):
            if stamp in cues:
                marks[number] |= Mark.KEY


def _mark_losses(demuxer: str, marks: bytearray) -> None:
    """Something is missing in what the demuxer calls corrupt, or behind it: behind it, at any
    rate, pictures refer to what is not there.
    """
    if not any(mark & _CORRUPT for mark in set(marks)):
        return
    # A parser cuts transport streams into pictures: it hands one on when the next one begins,
    # with the marks of that one.
    step = 2 if demuxer == "mpegts" else 1
    for number in range(len(marks) - step):
        if marks[number] & _CORRUPT:
            marks[number + step] |= Mark.BEHIND_LOSS


def _unmark_filled(marks: bytearray) -> None:
    """Where many packets end in zeros, that is how they were written."""
    if not any(mark & _UNENDED for mark in set(marks)):
        return
    unended = [number for number, mark in enumerate(marks) if mark & _UNENDED]
    if not is_seldom(len(unended), len(marks)):
        for number in unended:
            marks[number] &= ~_UNENDED


def _keys_in_order(entries: IndexEntries) -> Iterator[IndexEntry]:
    """The keyframes among ascending entries, from one to the next: there are many between."""
    number, stamp = -1, entries[0].timestamp if len(entries) else 0
    while (following := entries.search_timestamp(stamp, backward=False)) > number:
        number, stamp = following, entries[following].timestamp + 1
        yield entries[number]
