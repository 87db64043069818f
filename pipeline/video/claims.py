"""What the decoding child claims about a file, checked and turned into a MediaInfo."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput, FailureCode
from pipeline.types import MediaInfo, Size
from pipeline.video.frames import display_size, orientation, plausible_aspect
from pipeline.video.wire import Header

MIN_PRESENT = 0.9  # of the declared length of a file that was cut; with less the video has failed


def media_info(
    header: Header, pts: NDArray[np.int64], is_key: NDArray[np.bool_], *, container: str
) -> MediaInfo:
    """Turn the child's claims into a MediaInfo. BadInput where they cannot be or tell of damage.

    pts, is_key: (T,) in decoding order; the result's are in order of presentation, each stamp once.
    """
    pts, first_places = np.unique(pts, return_index=True)
    is_key = is_key[first_places]
    time_base = _time_base(header)
    spans = np.diff(pts)
    last = (
        header.last_duration
        if header.last_duration > 0
        else int(np.median(spans))
        if len(spans)
        else 0
    )
    duration_s = float((int(pts[-1]) - int(pts[0]) + last) * time_base)
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
        flags=(*header.flags, *_flags(header, aspect=aspect, duration_s=duration_s)),
    )


def _flags(header: Header, *, aspect: float, duration_s: float) -> Iterator[str]:
    """What the comparison of claims shows; raises BadInput(TRUNCATED) when too much is missing."""
    present = header.num_frames
    if header.is_cut:
        declared = header.declared_frames or header.declared_duration_s
        share = (present if header.declared_frames else duration_s) / declared if declared else 1.0
        if share < MIN_PRESENT:
            raise BadInput(FailureCode.TRUNCATED, f"{share:.0%} of the declared length is there")
        yield "truncated"
    elif header.declared_frames and header.declared_frames != present:
        yield "count_mismatch"
    if aspect != 1.0:
        yield "non_square_pixels"


def _time_base(header: Header) -> Fraction:
    if header.time_base_num <= 0 or header.time_base_den <= 0:
        raise BadInput(FailureCode.DECODER_PROTOCOL, "the time base is not positive")
    return Fraction(header.time_base_num, header.time_base_den)
