"""What H.264 says of itself: sequence parameter sets, and the beginnings of slices (7.3)."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.video.bits import Bits
from pipeline.video.nal_units import avcc_units, lengthy_units, unescaped, units

_HEADER_BYTES = 64  # of a slice's, and more than enough
_MAX_ORDER_BITS = 16
_MAX_SEQUENCE = 512  # bytes of a parameter set that are looked at
_MAX_PREFIX = 4096  # bytes in front of a first slice that are looked at
_SLICE, _PARTITION, _IDR, _SPS = 1, 2, 5, 7  # kinds of NAL units (H.264, table 7-1)
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a sequence parameter set says of the headers of slices (H.264, 7.3.2.1.1)."""

    order_type: int
    order_bits: int  # of a count of pictures; 0 where there is none
    number_bits: int
    has_fields: bool
    has_planes: bool
    may_skip: bool  # numbers of pictures


@dataclass(frozen=True, slots=True)
class CodedPicture:
    is_idr: bool
    is_reference: bool
    number: int  # of pictures that are referred to; another one has that of the next of them
    num_numbers: int  # until they begin anew; 0: they may leave some out
    order: int  # the low bits of its count
    span: int  # how far they reach; 0: pictures are shown as they are decoded
    is_bottom: bool | None  # of a field; None: a frame


class H264Headers:
    """Packets of one stream, whose parameter sets are learnt as they come."""

    def __init__(self, extradata: bytes) -> None:
        self.sequences: dict[int, _Sequence] = {}
        # Behind a first byte of 1 stands how many bytes give the length of a unit (avcC).
        is_avcc = extradata[:1] == b"\1" and len(extradata) > 6
        self._length_bytes = (extradata[4] & 3) + 1 if is_avcc else 0
        for unit in avcc_units(extradata) if self._length_bytes else units(extradata):
            self._learn(unit)

    @property
    def has_fields(self) -> bool:
        """Whether a picture may be coded as two fields."""
        return any(sequence.has_fields for sequence in self.sequences.values())

    def picture(self, packet: memoryview, *, learns: bool = True) -> CodedPicture | None:
        """The picture that a packet begins with."""
        head = bytes(packet[:_MAX_PREFIX])
        for unit in self._units(head):
            kind = unit[0] & 31
            if kind == _SPS and learns:
                self._learn(unit)
            elif kind == _PARTITION:
                return None
            elif kind in (_SLICE, _IDR):
                return self._slice(unit)
        return None

    def _units(self, head: bytes) -> Iterator[bytes]:
        return lengthy_units(head, self._length_bytes) if self._length_bytes else units(head)

    def _slice(self, unit: bytes) -> CodedPicture | None:
        """The beginning of a slice's header (H.264, 7.3.3), which must be a picture's first."""
        sequences = {*self.sequences.values()}
        if len(sequences) != 1:
            return None
        [sequence] = sequences
        bits = Bits(unescaped(unit[1:_HEADER_BYTES]))
        is_first = bits.golomb() == 0
        bits.golomb()
        bits.golomb()
        bits.take(2 * sequence.has_planes)
        number = bits.take(sequence.number_bits)
        is_field = sequence.has_fields and bits.take(1)
        is_bottom = bool(bits.take(1)) if is_field else None
        is_idr = unit[0] & 31 == _IDR
        if is_idr:
            bits.golomb()
        if not is_first or sequence.order_type == 1:
            return None
        return CodedPicture(
            is_idr=is_idr,
            is_reference=bool(unit[0] & 0x60),
            number=number,
            num_numbers=0 if sequence.may_skip else 1 << sequence.number_bits,
            order=bits.take(sequence.order_bits),
            span=1 << sequence.order_bits if sequence.order_bits else 0,
            is_bottom=is_bottom,
        )

    def _learn(self, unit: bytes) -> None:
        if len(unit) < 4 or unit[0] & 31 != _SPS:
            return
        bits = Bits(unescaped(unit[1:_MAX_SEQUENCE]))
        profile = bits.take(8)
        bits.take(16)
        number = bits.golomb()
        has_planes = False
        if profile in _HIGH_PROFILES:
            if bits.golomb() == 3:
                has_planes = bool(bits.take(1))
                num_lists = 12
            else:
                num_lists = 8
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.take(1):
                for place in range(num_lists):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if place < 6 else 64)
        number_bits = bits.golomb() + 4
        order_type = bits.golomb()
        order_bits = bits.golomb() + 4 if order_type == 0 else 0
        if order_bits > _MAX_ORDER_BITS:
            return
        if order_type == 1:
            bits.take(1)
            bits.golomb()
            bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb()
        may_skip = bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        self.sequences[number] = _Sequence(
            order_type,
            order_bits,
            number_bits,
            has_fields=not bits.take(1),
            has_planes=has_planes,
            may_skip=may_skip,
        )


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last
