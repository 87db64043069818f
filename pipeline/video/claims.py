"""What the decoding child claims about a file, checked and turned into a MediaInfo."""

from collections.abc import Iterator
from fractions import Fraction

from pipeline.errors import BadInput, FailureCode
from pipeline.types import MediaInfo, Size
from pipeline.video.frames import display_size, orientation, plausible_aspect
from pipeline.video.presentation import Order
from pipeline.video.wire import Header

# The last picture is held while the sound goes on. Sound rarely ends with the picture exactly; what
# is shorter than one step at two frames a second is no picture of its own.
MIN_HELD_S = 0.5
MIN_PRESENT = 0.9  # of the declared length of a file that was cut; with less the video has failed


def media_info(header: Header, order: Order, *, container: str) -> MediaInfo:
    """Turn the child's claims into a MediaInfo. BadInput where they cannot be or tell of damage."""
    if not len(order.pts):
        code = FailureCode.TRUNCATED if header.is_cut else FailureCode.NOT_DECODABLE
        raise BadInput(code, "no frame of it can be decoded")
    pts, is_key = order.pts, order.is_key
    if header.is_still:
        pts, is_key = pts[:1], is_key[:1]
    if (pts[1:] < pts[:-1]).any():  # sums of stamps that wrapped
        raise BadInput(FailureCode.NOT_DECODABLE, "its time stamps are beyond any length")
    time_base = _time_base(header, is_numbered=order.is_numbered)
    duration_s = float(
        (int(pts[-1]) - int(pts[0]) + _last_duration(header, order, container)) * time_base
    )
    offset = 0 if order.is_numbered else max(0, header.offset + order.late_by)
    to_end_s = header.file_end_s - float(offset * time_base)
    if to_end_s > duration_s + MIN_HELD_S and not header.is_still:
        duration_s = to_end_s
    rotation_deg, is_mirrored = orientation(header.matrix)
    aspect = plausible_aspect(header.sar_num, header.sar_den)
    shown = display_size(
        Size(header.coded_height, header.coded_width),
        sample_aspect_ratio=aspect,
        rotation_deg=rotation_deg,
    )
    return MediaInfo(
        container=container,
        codec=header.codec,
        pixel_format=header.pixel_format,
        width=shown.width,
        height=shown.height,
        coded_width=header.coded_width,
        coded_height=header.coded_height,
        rotation_deg=rotation_deg,
        is_mirrored=is_mirrored,
        sample_aspect_ratio=aspect,
        time_base_num=time_base.numerator,
        time_base_den=time_base.denominator,
        pts=pts,
        is_key=is_key,
        duration_s=duration_s,
        declared_duration_s=header.declared_duration_s or None,
        is_still=header.is_still,
        flags=(
            *header.flags,
            *_order_flags(order),
            *_flags(header, order, container, aspect=aspect, duration_s=duration_s),
        ),
        offset=offset,
    )


def _last_duration(header: Header, order: Order, container: str) -> int:
    """Ticks for which the last frame is shown."""
    if order.is_numbered:
        return 1
    # AVI's packets last one tick, however short the ticks are.
    is_told = header.last_duration > 0 and not order.is_joined and container != "avi"
    return order.held + (header.last_duration if is_told else order.spacing)


def _order_flags(order: Order) -> Iterator[str]:
    if order.is_numbered:
        yield "no_timestamps"
    if order.is_joined or order.is_permuted:
        yield "nonmonotonic"
    if order.num_leading:
        yield "starts_without_keyframe"


def _flags(
    header: Header, order: Order, container: str, *, aspect: float, duration_s: float
) -> Iterator[str]:
    """What the comparison of claims shows; raises BadInput(TRUNCATED) when too much is missing."""
    present = header.num_packets
    if header.is_cut:
        declared = header.declared_frames or header.declared_duration_s
        share = (present if header.declared_frames else duration_s) / declared if declared else 1.0
        if share < MIN_PRESENT:
            raise BadInput(FailureCode.TRUNCATED, f"{share:.0%} of the declared length is there")
        yield "truncated"
    elif not _is_counted_right(header, order, container):
        yield "count_mismatch"
    if aspect != 1.0:
        yield "non_square_pixels"


def _is_counted_right(header: Header, order: Order, container: str) -> bool:
    """Whether there are as many frames as the header says, as far as that can be said."""
    if container == "mov" or not header.declared_frames:
        return True  # in mov the packets are the table's, and edit lists leave some out
    if container == "avi" and order.spacing > 1:
        # Its count is of ticks: empty chunks go on showing the frame before.
        ticks = int(order.pts[-1]) + order.held + order.spacing
        return abs(header.declared_frames - ticks) <= 2 * order.spacing
    return header.declared_frames == header.num_packets


def _time_base(header: Header, *, is_numbered: bool) -> Fraction:
    values = header.time_base_num, header.time_base_den, header.rate_num, header.rate_den
    if min(values) <= 0:
        raise BadInput(FailureCode.DECODER_PROTOCOL, "the time base is not positive")
    if is_numbered:
        return Fraction(header.rate_den, header.rate_num)
    return Fraction(header.time_base_num, header.time_base_den)
