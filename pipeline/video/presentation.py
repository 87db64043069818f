"""Which packet shows which picture. The identity of a frame is its place in presentation order.

Packets come in decoding order. Some show nothing (cut away by an edit list, hidden, not coded), and
their stamps may be missing, start again or be a permutation of the right ones. Where header and
stamps prove the order it is read off them; where they do not, a decoder has to be asked once:
then its output order is the order, and the k-th picture has the k-th smallest stamp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.video.wire import NO_STAMP, Header, Mark

Numbers = NDArray[np.int64]

# FFmpeg takes a longer leap between two packets of these for another recording.
JOINABLE = ("mpegts", "mpeg")
LONGEST_GAP_S = 10

_REACH = 4  # places to both sides of a lost picture
_NEARBY = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packets:
    """All packets in decoding order, as the demuxer gives them. (P,) each."""

    stamps: Numbers  # NO_STAMP where there is none
    marks: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What decoding every packet showed, or reading every picture's header."""

    outputs: Numbers  # (T,) the packet of each picture that came out, in the order of output
    is_refused: NDArray[np.bool_]  # (P,) what the decoder could not decode, or not whole
    is_decoded: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Every frame in order of presentation: (T,) each. No two have one packet or one stamp."""

    packets: Numbers
    pts: Numbers  # ascending: joined parts follow one another
    is_key: NDArray[np.bool_]
    is_numbered: bool = False  # stamps are worth nothing: pts are ordinal numbers
    is_joined: bool = False
    is_permuted: bool = False
    is_measured: bool = False
    num_leading: int = 0  # dropped: they need a keyframe that is not in the file
    late_by: int = 0  # ticks from the first packet that is to be shown to the first frame
    held: int = 0  # ticks from the last frame to the last packet, which shows nothing new
    spacing: int = 0  # ticks from stamp to stamp at the end


def order_of(
    packets: Packets, header: Header, *, demuxer: str, measured: Measured | None = None
) -> Order | None:
    """The order of the frames, or None where it has to be measured first."""
    shown, num_leading = _shown(packets)
    stamps = packets.stamps[shown]
    has_gaps = bool((stamps == NO_STAMP).any())
    if measured is not None:
        is_sure = measured.is_decoded or _comes_out(measured.outputs, header.reorder_depth)
        return _measured(packets, header, measured, demuxer=demuxer) if is_sure else None
    if (packets.marks & Mark.PACKED).any():
        return None  # what stands for a second picture looks as if it showed none
    if has_gaps:
        if header.reorder_depth:
            return None
        return _numbered(shown, packets, num_leading=num_leading)
    part = _parts(shown, packets, header, demuxer=demuxer)
    in_order = np.lexsort((stamps, part))
    if not _is_proven(stamps, part, in_order, header.reorder_depth):
        return None
    is_early = _refers_to_nothing(shown, packets)
    in_order = in_order[~is_early[in_order]]
    part = part[in_order]
    is_edited = _is_edited(packets)
    return _stamped(
        shown[in_order],
        _unrolled(stamps[in_order], part, may_pause=is_edited),
        packets,
        is_joined=bool(len(part) and part[-1]) and not is_edited,
        num_leading=num_leading + int(is_early.sum()),
        early=shown[is_early],
    )


def _shown(packets: Packets) -> tuple[Numbers, int]:
    """Packets that show a picture, from the first keyframe on, and how many came before it."""
    marks = packets.marks
    is_shown = (marks & (Mark.DISCARD | Mark.HIDDEN)) == 0
    keys = np.flatnonzero(marks & Mark.KEY)
    first = int(keys[0]) if len(keys) else 0
    num_leading = int(is_shown[:first].sum())
    is_shown[:first] = False
    shown = np.flatnonzero(is_shown)
    whole = np.flatnonzero((marks[shown] & Mark.CORRUPT) == 0)  # half packets end many a stream
    return shown[: whole[-1] + 1 if len(whole) else 0], num_leading


def _refers_to_nothing(shown: Numbers, packets: Packets) -> NDArray[np.bool_]:
    """Pictures shown before the first keyframe and decoded after it: they need what is cut off."""
    keys = np.flatnonzero(packets.marks & Mark.KEY)
    is_key = (packets.marks[shown] & Mark.KEY) != 0
    if not len(keys) or packets.stamps[keys[0]] == NO_STAMP:
        return np.zeros(len(shown), np.bool_)
    is_before = packets.stamps[shown] < packets.stamps[keys[0]]
    # Behind a second keyframe an earlier stamp is a leap in time.
    is_early: NDArray[np.bool_] = is_before & ~is_key & (np.cumsum(is_key) < 2)
    return is_early


def _parts(shown: Numbers, packets: Packets, header: Header, *, demuxer: str) -> Numbers:
    """Number of the part that each packet belongs to: parts are recordings joined to one file.

    Each keyframe is shown later than the one before, and not much later; else a part begins.
    """
    if _is_edited(packets):
        return _edits(packets)[shown]
    stamps = packets.stamps[shown]
    is_start = np.zeros(len(shown), np.int64)
    keys = np.flatnonzero(packets.marks[shown] & Mark.KEY)
    is_start[keys[1:]] = stamps[keys[1:]] <= stamps[keys[:-1]]
    if demuxer in JOINABLE and len(shown):
        longest = LONGEST_GAP_S * header.time_base_den // header.time_base_num
        latest = np.maximum.accumulate(stamps)
        later = keys[keys > 0]
        is_start[later] |= stamps[later] - latest[later - 1] > longest
    return np.cumsum(is_start)


def _is_edited(packets: Packets) -> bool:
    return bool((packets.marks & Mark.DISCARD).any())


def _edits(packets: Packets) -> Numbers:
    """(P,) Number of the edit that each packet is of: what an edit list plays in one go.

    The demuxer gives each from a keyframe on, and some of what follows it. So a keyframe that is
    stamped before the end of the group before it is another edit's.
    """
    keys = np.flatnonzero(packets.marks & Mark.KEY)
    is_start = np.zeros(len(packets.marks), np.int64)
    if len(keys):
        latest = np.maximum.reduceat(packets.stamps, keys)
        is_start[keys[1:]] = packets.stamps[keys[1:]] <= latest[:-1]
    return np.cumsum(is_start)


def _is_proven(stamps: Numbers, part: Numbers, in_order: Numbers, depth: int) -> bool:
    """Tell whether a decoder that holds back so many pictures puts these stamps in order.

    If it reorders, stamps that only ascend in decoding order prove nothing: some muxers write them.
    """
    if depth and len(stamps) > 1 and not (np.diff(stamps)[np.diff(part) == 0] < 0).any():
        return False
    return _is_within_reach(in_order, depth)


def _comes_out(outputs: Numbers, depth: int) -> bool:
    """Tell whether a decoder that holds back so many pictures can give these packets' in order."""
    return _is_within_reach(np.argsort(np.argsort(outputs)), depth)


def _is_within_reach(ranks: Numbers, depth: int) -> bool:
    """ranks: (T,) in decoding order, of the pictures in the order of output."""
    return bool((ranks - np.arange(len(ranks)) <= depth).all())


def _measured(packets: Packets, header: Header, measured: Measured, *, demuxer: str) -> Order:
    """The order in which pictures came out; those that failed stand where they would have."""
    keys = np.flatnonzero(packets.marks & Mark.KEY)
    outputs = measured.outputs
    outputs = outputs[np.sort(np.unique(outputs, return_index=True)[1])]
    num_leading = 0
    if len(keys):
        # Before the first keyframe nothing is whole.
        known = np.flatnonzero(outputs == keys[0])
        first = int(known[0]) if len(known) else int((outputs < keys[0]).sum())
        num_leading, outputs = first, outputs[first:]
    outputs = outputs[(packets.marks[outputs] & Mark.DISCARD) == 0]
    is_lost = measured.is_refused & ((packets.marks & (Mark.DISCARD | Mark.HIDDEN)) == 0)
    is_lost[: keys[0] if len(keys) else 0] = False
    is_lost[outputs] = False
    shown = _with_lost(outputs, np.flatnonzero(is_lost), header.reorder_depth)
    stamps = packets.stamps[shown]
    if (stamps == NO_STAMP).any() or not len(shown):
        return _numbered(shown, packets, num_leading=num_leading, is_measured=measured.is_decoded)
    decoding = np.sort(shown)
    part = _parts(decoding, packets, header, demuxer=demuxer)
    is_edited = _is_edited(packets)
    if part[-1] and not is_edited and _interleave(packets.stamps[decoding], part):
        part = np.zeros_like(part)  # no parts, but stamps in disorder
    part_of = part[np.searchsorted(decoding, shown)]
    is_in_part_order = bool((np.diff(part_of) >= 0).all())
    if not is_in_part_order:
        part, part_of = np.zeros_like(part), np.zeros_like(part)
    sorted_stamps = stamps[np.lexsort((stamps, part_of))]
    return _stamped(
        shown,
        _unrolled(sorted_stamps, part_of, may_pause=is_edited),
        packets,
        is_joined=bool(part_of[-1]) and not is_edited,
        is_permuted=bool((sorted_stamps != stamps).any()),
        is_measured=measured.is_decoded,
        num_leading=num_leading,
    )


def _with_lost(outputs: Numbers, lost: Numbers, depth: int) -> Numbers:
    """Put each lost packet where its picture would have come out.

    A picture comes out at most `depth` places before its packet's own; one that would come out
    even earlier shows that something is missing before it. Of the places that this leaves it gets
    the one that makes its neighbourhood most like others: encoders repeat one pattern.
    """
    if not len(lost):
        return outputs
    known = np.sort(np.concatenate([outputs, lost]))  # what is not shown takes no place
    outputs = np.searchsorted(known, outputs)
    for packet in np.searchsorted(known, lost).tolist():
        too_early = np.flatnonzero(outputs - depth > np.arange(len(outputs)))
        rank = int((outputs < packet).sum())
        latest = int(too_early[0]) if len(too_early) else min(rank + _REACH, len(outputs))
        likely = latest if len(too_early) else rank
        places = range(min(max(0, rank - depth), latest), latest + 1)
        at = max(places, key=lambda at: (_likeness(outputs, packet, at), -abs(at - likely)))
        outputs = np.insert(outputs, at, packet)
    return known[outputs]


def _likeness(outputs: Numbers, packet: int, at: int) -> int:
    """How often the pattern around a packet recurs nearby if its picture comes out at this place.

    The pattern is how far each picture moves from its packet's place, in decoding order.
    """
    first = max(0, at - _NEARBY)
    near = np.insert(outputs[first : at + _NEARBY], at - first, packet)
    by_packet = np.argsort(near)
    moves = by_packet - np.arange(len(near))
    own = int(np.searchsorted(near[by_packet], packet))
    width = 2 * _REACH + 1
    if not _REACH <= own < len(near) - _REACH or len(moves) < width:
        return 0
    patterns = np.lib.stride_tricks.sliding_window_view(moves, width)
    return int((patterns == patterns[own - _REACH]).all(axis=1).sum())


def _interleave(stamps: Numbers, part: Numbers) -> bool:
    """Tell whether what looks like parts shares one span of time without sharing a stamp."""
    if len(np.unique(stamps)) < len(stamps):
        return False
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    lows, highs = np.minimum.reduceat(stamps, starts), np.maximum.reduceat(stamps, starts)
    by_low = np.argsort(lows)
    return bool((highs[by_low][:-1] > lows[by_low][1:]).any())


def _unrolled(stamps: Numbers, part: Numbers, *, may_pause: bool = False) -> Numbers:
    """Let each part begin where the one before ends, or later where there may be a pause.

    stamps: ascending within their part.
    """
    starts = np.flatnonzero(np.diff(part)) + 1
    if not len(starts):
        return stamps
    unrolled = stamps.copy()
    bounds = [0, *starts.tolist(), len(stamps)]
    for before, start, stop in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        spacing = int(np.median(np.diff(stamps[before:start]))) if start - before > 1 else 1
        end = int(unrolled[start - 1]) + max(spacing, 1)
        if not may_pause or end > int(stamps[start]):
            unrolled[start:stop] += end - int(stamps[start])
    return unrolled


def _numbered(
    shown: Numbers, packets: Packets, *, num_leading: int, is_measured: bool = False
) -> Order:
    return Order(
        packets=shown,
        pts=np.arange(len(shown), dtype=np.int64),
        is_key=(packets.marks[shown] & Mark.KEY) != 0,
        is_numbered=True,
        is_measured=is_measured,
        num_leading=num_leading,
    )


def _stamped(
    shown: Numbers,
    pts: Numbers,
    packets: Packets,
    *,
    num_leading: int,
    is_joined: bool,
    is_permuted: bool = False,
    is_measured: bool = False,
    early: Numbers | None = None,
) -> Order:
    """early: packets that no player counts from, as nothing of them can be drawn."""
    is_seen = np.diff(pts, append=pts[-1] + 1 if len(pts) else 0) > 0  # of equal ones the last
    shown, pts = shown[is_seen], pts[is_seen]
    is_meant = ((packets.marks & Mark.DISCARD) == 0) & (packets.stamps != NO_STAMP)
    if early is not None:
        is_meant[early] = False
    meant = packets.stamps[is_meant]
    is_unknown = is_joined or not len(pts) or not len(meant)
    return Order(
        packets=shown,
        pts=pts,
        is_key=(packets.marks[shown] & Mark.KEY) != 0,
        is_joined=is_joined,
        is_permuted=is_permuted,
        is_measured=is_measured,
        num_leading=num_leading,
        late_by=0 if is_unknown else int(pts[0] - meant.min()),
        held=0 if is_unknown else max(0, int(meant.max() - pts[-1])),
        spacing=_spacing(pts, meant, is_joined=is_joined),
    )


def _spacing(pts: Numbers, meant: Numbers, *, is_joined: bool) -> int:
    """Ticks from stamp to stamp at the end, hidden packets included; 0 if there is only one."""
    if is_joined:
        return int(pts[-1] - pts[-2])
    steps = np.diff(np.unique(meant[-64:]))
    return int(np.median(steps)) if len(steps) else 0
