"""Pictures that are missing from a stream which arrives in pieces, as the next headers show it.

Covered: H.264, MPEG-2 and MPEG-4 visual. Not covered: others; there the decoder has to complain.
"""

from collections.abc import Callable

from pipeline.video.h264_headers import H264Headers
from pipeline.video.picture_heads import B_PICTURE, PICTURE, VOP

Misses = Callable[[memoryview, bool], bool]  # a packet, and whether it is a keyframe

_MAX_PREFIX = 4096  # bytes in front of a picture that are looked at
_ZEROS = bytes(8)
_PICTURES = 1024  # of MPEG-2, until their numbers begin anew


def misses_reference(codec: str, extradata: bytes) -> Misses | None:
    """The test, packet by packet in decoding order, of whether a picture that others refer to is
    missing before it; None for codecs where nothing shows that.
    """
    if codec == "mpeg2video":
        return _Mpeg2Losses().misses_reference
    if codec == "mpeg4":
        return _Mpeg4Losses().misses_reference
    return _H264Losses(extradata).misses_reference if codec == "h264" else None


class _Mpeg2Losses:
    """Pictures bear numbers in order of presentation, anew behind a keyframe (13818-2, 6.3.9)."""

    def __init__(self) -> None:
        self._latest: int | None = None  # number of a picture that is referred to
        self._has_gap = False  # between its number and that of the one before

    def misses_reference(self, packet: memoryview, is_key: bool) -> bool:
        """Whether numbers begin anew where no keyframe is, a B-picture is shown behind the picture
        that it refers to, or nothing is shown between two pictures with numbers left for it.
        """
        head = bytes(packet[:_MAX_PREFIX])
        at = head.find(PICTURE) + len(PICTURE)
        if at < len(PICTURE) or len(head) < at + 2:
            return False
        number, kind = head[at] << 2 | head[at + 1] >> 6, head[at + 1] >> 3 & 7
        latest, had_gap = self._latest, self._has_gap
        if latest is None or is_key or kind != B_PICTURE:
            if number == latest and not is_key:
                return False  # the second field of one picture
            self._latest = number
            self._has_gap = not is_key and latest is not None and number > latest + 1
        else:
            self._has_gap = False
            return 0 < number - latest < _PICTURES // 2
        return (
            not is_key and latest is not None and (had_gap or 0 < latest - number < _PICTURES // 2)
        )


class _Mpeg4Losses:
    """Its pictures bear no numbers. But a parser cuts them apart where the next one begins, so
    what is left of one without its beginning lies behind or before another.
    """

    def __init__(self) -> None:
        self._ends_in_zeros = False

    def misses_reference(self, packet: memoryview, is_key: bool) -> bool:
        """Whether there are more zeros than codes can make (ISO 14496-2, 5.2.3: start codes)."""
        before, _, own = bytes(packet).partition(VOP)
        is_behind = self._ends_in_zeros or _ZEROS in before
        self._ends_in_zeros = _ZEROS in own
        return is_behind


class _H264Losses:
    def __init__(self, extradata: bytes) -> None:
        self._headers = H264Headers(extradata)
        self._latest: int | None = None  # number of a picture that is referred to

    def misses_reference(self, packet: memoryview, is_key: bool) -> bool:
        """Whether the numbers of pictures leap (H.264, 7.4.3: frame_num)."""
        known = self._headers.sequences
        if is_key:  # elsewhere a parameter set is what is left of a broken keyframe
            self._headers.sequences = {}
        picture = self._headers.picture(packet, learns=is_key)
        if not self._headers.sequences:
            self._headers.sequences = known
            picture = self._headers.picture(packet, learns=False)
        if picture is None or not picture.num_numbers:
            return False
        latest, number = self._latest, picture.number
        if picture.is_reference:
            self._latest = number
        if picture.is_idr or latest is None:
            return False
        return number not in (latest, (latest + 1) % picture.num_numbers)
