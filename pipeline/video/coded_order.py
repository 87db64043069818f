"""What coded headers say of the order of pictures, where a container's stamps prove none.

Covered: H.264 whose slices count their pictures, MPEG-1 and MPEG-2, and MPEG-4 visual, one picture
in a packet.
Not covered: whatever else, or cannot be read. A decoder has to be asked then, which costs as much
as decoding it all.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pipeline.video.h264_headers import H264Headers
from pipeline.video.picture_heads import HEADS, PictureHeads

Coded = Iterable[tuple[memoryview, bool]]  # packets, and which of them are keyframes


@dataclass(frozen=True, slots=True)
class Told:
    """Numbers of packets in the order their pictures are shown, and of those that do not say."""

    shown: list[int]
    unread: list[int]


CodedOrder = Callable[[Coded], Told | None]

_REACH, _NEARBY = 4, 512  # how many neighbours are compared, how far away


def coded_order(codec: str, extradata: bytes) -> CodedOrder | None:
    """What tells the order of these packets' pictures; None for codecs whose headers are not read.

    It gives None where headers are unclear. A few that cannot be read are damage: a keyframe begins
    a group as others do, and another picture's place is left open.
    """
    if codec in HEADS:
        return partial(_by_kinds, HEADS[codec])
    return partial(_by_counts, H264Headers(extradata)) if codec == "h264" else None


def _is_damage(num_unread: int, num_packets: int) -> bool:
    return num_unread <= max(2, min(num_packets // 20, 64))


def _by_kinds(heads: PictureHeads, packets: Coded) -> Told | None:
    """B-pictures are shown at once, others when the next of them comes."""
    is_b: list[bool | None] = []
    for packet, is_key in packets:
        data = bytes(packet)
        if not heads.may_share and data.count(heads.start) > 1:
            return None  # packed: two in one
        known = heads.is_b(data)
        is_b.append(False if known is None and is_key else known)
    unread = [number for number, known in enumerate(is_b) if known is None]
    if not _is_damage(len(unread), len(is_b)):
        return None
    for number in unread:
        is_b[number] = _is_likely_b(is_b, number)
    shown: list[int] = []
    held: int | None = None
    for number, is_between in enumerate(is_b):
        if not is_between:
            if held is not None:
                shown.append(held)
            held = number
        elif shown:  # else it refers to a picture that is not there
            shown.append(number)
    return Told(shown if held is None else [*shown, held], [])


def _is_likely_b(is_b: list[bool | None], number: int) -> bool:
    """What stands between the same neighbours elsewhere: encoders repeat one pattern."""
    before, after = is_b[max(0, number - _REACH) : number], is_b[number + 1 :][:_REACH]
    votes = Counter(
        is_b[place]
        for place in range(max(_REACH, number - _NEARBY), min(number + _NEARBY, len(is_b)))
        if is_b[place - _REACH : place] == before and is_b[place + 1 : place + 1 + _REACH] == after
    )
    return votes[True] > votes[False]


def _by_counts(headers: H264Headers, packets: Coded) -> Told | None:
    """Order of pictures: sequence by sequence, by their count (H.264, 8.2.1)."""
    places: list[tuple[int, int, int]] = []
    unread: list[int] = []
    num_broken_keys, has_open_keys = 0, False
    sequence, high, low, number = 0, 0, 0, -1
    for number, (packet, is_key) in enumerate(packets):
        picture = headers.picture(packet)
        if picture is None and not is_key:
            unread.append(number)
            continue
        if picture is None or picture.is_idr:
            sequence, high, low = sequence + 1, 0, 0
        if picture is None:
            num_broken_keys += 1
            places.append((sequence, 0, number))
            continue
        has_open_keys |= is_key and not picture.is_idr
        if not picture.span:
            places.append((sequence, number, number))
            continue
        span, own = picture.span, high
        if picture.order < low and low - picture.order >= span // 2:
            own += span
        elif picture.order > low and picture.order - low > span // 2:
            own -= span
        if picture.is_reference:
            high, low = own, picture.order
        places.append((sequence, own + picture.order, number))
    is_clear = _is_damage(len(unread) + num_broken_keys, number + 1)
    if not is_clear or (num_broken_keys and has_open_keys):
        return None
    if len({place[:2] for place in places}) < len(places):
        return None  # two pictures of one count: it began anew within a sequence
    return Told([number for _, _, number in sorted(places)], unread)
