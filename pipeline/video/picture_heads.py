"""Where the headers of pictures in MPEG-1, MPEG-2 and MPEG-4 visual say of what kind one is."""

from dataclasses import dataclass

PICTURE, B_PICTURE = b"\x00\x00\x01\x00", 3  # MPEG-1 and MPEG-2: start, kind
VOP = b"\x00\x00\x01\xb6"
_B_VOP = 2


@dataclass(frozen=True, slots=True)
class PictureHeads:
    """Where the headers of pictures say that one is shown between two that were decoded before."""

    start: bytes
    place: int  # of the byte behind it, and in that
    shift: int
    mask: int
    b_picture: int
    may_share: bool  # two fields may lie in one packet

    def is_b(self, data: bytes) -> bool | None:
        """Whether a packet's first picture is such a one, to which none refers; None: unclear."""
        at = data.find(self.start) + len(self.start) + self.place
        if at < len(self.start) + self.place or at >= len(data):
            return None
        return data[at] >> self.shift & self.mask == self.b_picture


_MPEG2_HEADS = PictureHeads(PICTURE, 1, 3, 7, B_PICTURE, may_share=True)  # ISO 13818-2, 6.2.3
HEADS = {
    "mpeg4": PictureHeads(VOP, 0, 6, 3, _B_VOP, may_share=False),  # ISO 14496-2, 6.1.3.7
    "mpeg1video": _MPEG2_HEADS,
    "mpeg2video": _MPEG2_HEADS,
}
