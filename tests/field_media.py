"""H.264 coded field by field, which no encoder at hand writes.

A field is coded as a frame of its size is, without arithmetic coding, but for some bits of its
header and the order of coefficients, which flat pictures do not have.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from pipeline.video.nal_units import unescaped, units
from tests.media_factory import FORMATS, Clip, barcode, write

FIELDS = Clip(suffix=".h264", num_frames=36, gop=12)  # half of the pictures' height
_OPTIONS = (("profile", "main"), ("x264-params", "keyint=1:bframes=0:slices=1"))
_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8


def in_fields(folder: Path, suffix: str, *, are_apart: bool) -> Path:
    """FIELDS, each picture as two fields: in a packet of their own or in one."""
    fields = _fields(folder)
    stream = folder / "stream.h264"
    stream.write_bytes(b"".join(fields))
    if suffix == stream.suffix:
        return stream
    path, ticks = folder / f"fields{suffix}", Fraction(1, 2 * FIELDS.fps)
    step = 1 if are_apart else 2
    with av.open(str(stream)) as source, av.open(str(path), "w", format=FORMATS[suffix]) as target:
        track = target.add_stream_from_template(source.streams.video[0])
        track.time_base = ticks
        for place in range(0, len(fields), step):
            packet = av.Packet(b"".join(fields[place : place + step]))
            packet.stream, packet.time_base = track, ticks
            packet.pts = packet.dts = place
            packet.is_keyframe = place % (2 * FIELDS.gop) == 0
            packet.duration = step
            target.mux(packet)
    return path


def _fields(folder: Path) -> list[bytes]:
    """The upper and the lower field of each picture, behind start codes."""
    pictures = [
        barcode(number, width=FIELDS.width, height=FIELDS.height)
        for number in range(FIELDS.num_frames)
        for _ in range(2)
    ]
    path = folder / "frames.h264"
    write(path, pictures, Clip(suffix=".h264", num_frames=len(pictures), options=_OPTIONS))
    return [*_as_fields(path.read_bytes())]


def _as_fields(stream: bytes) -> Iterator[bytes]:
    number_bits, place = 0, 0
    settings: dict[int, bytes] = {}
    for unit in units(stream):
        kind, bits = unit[0] & 31, _Bits(unescaped(unit[1:].rstrip(b"\0")))
        if kind == _SPS:
            number_bits = _allow_fields(bits)
            settings[kind] = _escaped(unit[:1] + bits.rest())
        elif kind == _PPS:
            settings[kind] = _escaped(unit[:1] + bits.rest())
        elif kind == _IDR:
            frame, is_lower = divmod(place, 2)
            is_key = frame % FIELDS.gop == 0 and not is_lower
            for _ in range(3):  # the first block, the kind, the settings
                bits.copy_golomb()
            bits.skip(number_bits)
            bits.write(frame % FIELDS.gop, number_bits)
            bits.write(0b10 | is_lower, 2)
            if is_key:
                bits.copy_golomb()
            else:  # without a number of its own, and one bit of what becomes of references
                bits.skip_golomb()
                bits.skip(1)
            head = unit[0] if is_key else unit[0] & 0xE0 | _SLICE
            front = settings[_SPS] + settings[_PPS] if is_key else b""
            yield front + _escaped(bytes([head]) + bits.rest())
            place += 1


def _allow_fields(bits: "_Bits") -> int:
    """Copy a parameter set, but for that. Returns how many bits the number of a picture has."""
    bits.copy(24)
    bits.copy_golomb()
    number_bits = bits.copy_golomb() + 4
    bits.copy_golomb()  # the order of pictures, which is that of decoding
    bits.copy_golomb()
    bits.copy(1)
    bits.copy_golomb()
    bits.copy_golomb()
    bits.skip(1)
    bits.write(0b00, 2)
    return number_bits


class _Bits:
    """Bits that are copied one by one, others in their place, and in the end the rest."""

    def __init__(self, data: bytes) -> None:
        self._left = "".join(f"{byte:08b}" for byte in data)
        self._written = ""

    def copy(self, count: int) -> int:
        self._written += self._left[:count]
        return int(self.skip(count), 2)

    def copy_golomb(self) -> int:
        return self.copy(self._golomb_bits) - 1

    def skip(self, count: int) -> str:
        skipped, self._left = self._left[:count], self._left[count:]
        return skipped

    def skip_golomb(self) -> None:
        self.skip(self._golomb_bits)

    def write(self, value: int, count: int) -> None:
        self._written += f"{value:0{count}b}"

    def rest(self) -> bytes:
        bits = (self._written + self._left).rstrip("0")
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    @property
    def _golomb_bits(self) -> int:
        return 2 * self._left.index("1") + 1


def _escaped(unit: bytes) -> bytes:
    """Behind a start code, and without others in it."""
    escaped, num_zeros = bytearray(b"\0\0\0\1"), 0
    for byte in unit:
        if num_zeros == 2 and byte <= 3:
            escaped.append(3)
            num_zeros = 0
        escaped.append(byte)
        num_zeros = 0 if byte else num_zeros + 1
    return bytes(escaped)
