"""Files as careless muxers, cutters and disks leave them, made from sound clips."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from tests.media_factory import FORMATS, Clip, ffmpeg, make


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A packet: where it lies in its file, if it was read from one."""

    data: bytes
    pts: int
    dts: int
    is_key: bool
    pos: int = 0


def packets_of(path: Path) -> list[Coded]:
    """The first video's packets, in decoding order."""
    with av.open(str(path)) as container:
        [stream, *_] = container.streams.video
        return [
            Coded(
                data=bytes(packet),
                pts=packet.pts or 0,
                dts=packet.dts or 0,
                is_key=packet.is_keyframe,
                pos=packet.pos or 0,
            )
            for packet in container.demux(stream)
            if packet.size
        ]


def mux(like: Path, packets: Iterable[Coded], path: Path, *, time_base: Fraction) -> Path:
    """Write these packets, stamps in time_base, as a stream like that of another file."""
    with (
        av.open(str(like)) as source,
        av.open(str(path), "w", format=FORMATS[path.suffix]) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.time_base = time_base
        for coded in packets:
            packet = av.Packet(coded.data)
            packet.stream, packet.time_base = stream, time_base
            packet.pts, packet.dts, packet.is_keyframe = coded.pts, coded.dts, coded.is_key
            packet.duration = 1
            target.mux(packet)
    return path


def in_decoding_order(folder: Path, clip: Clip, suffix: str) -> Path:
    """The clip with the stamps of its packets ascending in the order they are decoded in."""
    source = make(folder, clip, "plain")
    packets = [
        replace(coded, pts=place, dts=place) for place, coded in enumerate(packets_of(source))
    ]
    return mux(source, packets, folder / f"ascending{suffix}", time_base=Fraction(1, clip.fps))


def shuffled(folder: Path, clip: Clip, order: Callable[[list[int]], None]) -> Path:
    """The clip in Matroska, its stamps handed out anew within each group of pictures."""
    source = make(folder, clip, "plain")
    packets = packets_of(source)
    places = list(range(len(packets)))
    for start in range(0, len(packets), clip.gop):
        group = places[start + 1 : start + clip.gop]
        order(group)
        places[start + 1 : start + clip.gop] = group
    packets = [
        replace(coded, pts=place + clip.gop, dts=number)  # muxers want pts >= dts
        for number, (coded, place) in enumerate(zip(packets, places, strict=True))
    ]
    return mux(source, packets, folder / "shuffled.mkv", time_base=Fraction(1, clip.fps))


# MPEG-4 visual: a VOP that is not coded stands for the picture before.


def not_coded_vop(like: bytes, *, time_bits: int) -> bytes:
    """A VOP of the same time as that one (a P-VOP, alone in its packet), without a picture."""
    at = like.index(b"\0\0\1\xb6") + 4
    bits = "".join(f"{byte:08b}" for byte in like[at : at + 8])
    seconds_end = bits.index("0", 2) + 1
    head = "01" + bits[2 : seconds_end + 1 + time_bits + 1] + "0"
    head += "0" + "1" * (-(len(head) + 1) % 8)  # stuffing
    return b"\0\0\1\xb6" + int(head, 2).to_bytes(len(head) // 8, "big")


def with_repeats(folder: Path, clip: Clip, suffix: str, every: int = 2) -> Path:
    """The clip with a not-coded VOP behind every so many pictures, in a packet of its own."""
    source = make(folder, clip, "plain")
    time_bits = max(1, (clip.fps - 1).bit_length())
    packets: list[Coded] = []
    for place, coded in enumerate(packets_of(source)):
        packets.append(coded)
        if place % every == every - 1:
            repeat = not_coded_vop(coded.data, time_bits=time_bits)
            packets.append(replace(coded, data=repeat, is_key=False))
    packets = [replace(coded, pts=place, dts=place) for place, coded in enumerate(packets)]
    return mux(source, packets, folder / f"repeats{suffix}", time_base=Fraction(1, clip.fps))


def packed(folder: Path, clip: Clip) -> Path:
    """AVI as DivX wrote it: each B-VOP in the packet of the P-VOP before, then one without."""
    source = make(folder, clip, "plain")
    time_bits = max(1, (clip.fps - 1).bit_length())
    packets = packets_of(source)
    divx = b"\0\0\1\xb2DivX503b1393p"
    packets[0] = replace(packets[0], data=_behind_layer(packets[0].data, divx))
    joined: list[Coded] = []
    for coded in packets:
        if _vop_type(coded.data) != 2:
            joined.append(coded)
            continue
        before = joined[-1]
        joined[-1] = replace(before, data=before.data + coded.data)
        empty = not_coded_vop(before.data, time_bits=time_bits)
        joined.append(replace(coded, data=empty))
    joined = [replace(coded, pts=place, dts=place) for place, coded in enumerate(joined)]
    return mux(source, joined, folder / "packed.avi", time_base=Fraction(1, clip.fps))


def _vop_type(data: bytes) -> int:
    return data[data.index(b"\0\0\1\xb6") + 4] >> 6


def _behind_layer(data: bytes, user_data: bytes) -> bytes:
    at = data.index(b"\0\0\1\xb6")
    return data[:at] + user_data + data[at:]


def with_hidden(folder: Path, clip: Clip, hidden: Sequence[int]) -> Path:
    """A VP8 clip with these pictures decoded but never shown, as alternate references are."""
    source = make(folder, clip, "plain")
    packets = [
        replace(coded, data=bytes([coded.data[0] & ~0x10]) + coded.data[1:], pts=place, dts=place)
        if place in hidden
        else replace(coded, pts=place, dts=place)
        for place, coded in enumerate(packets_of(source))
    ]
    return mux(source, packets, folder / "hidden.webm", time_base=Fraction(1, clip.fps))


# Edit lists. The muxer writes `moov` last: it may grow and no chunk moves.


def with_edits(path: Path, edits: Sequence[tuple[int, int]], target: Path) -> Path:
    """An mp4 whose track plays these (ms, start in media ticks; -1: nothing) one after another."""
    data = path.read_bytes()
    entries = b"".join(struct.pack(">IiI", ms, start, 1 << 16) for ms, start in edits)
    elst = _box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
    moov_at = data.rindex(b"moov") - 4
    target.write_bytes(data[:moov_at] + _edited(data[moov_at:], _box(b"edts", elst)))
    return target


def _edited(moov: bytes, edts: bytes) -> bytes:
    boxes = []
    for name, body in _boxes(moov[8:]):
        if name == b"trak":
            inner = [_box(n, b) for n, b in _boxes(body) if n != b"edts"]
            body = inner[0] + edts + b"".join(inner[1:])
        boxes.append(_box(name, body))
    return _box(b"moov", b"".join(boxes))


def with_two_descriptions(folder: Path, clips: tuple[Clip, Clip]) -> Path:
    """An mp4 whose pictures are those of one clip, then of another: a description for each.

    They are coded in the order that they are shown in, at one rate.
    """
    parts = [make(folder, clip, f"described{place}") for place, clip in enumerate(clips)]
    files = [dict(_boxes(part.read_bytes())) for part in parts]
    tables = [dict(_boxes(_within(file[b"moov"], *_TO_TABLES))) for file in files]
    packets = [packets_of(part) for part in parts]
    head = _box(b"ftyp", files[0][b"ftyp"])
    chunks = [b"".join(packet.data for packet in part) for part in packets]
    ticks = int.from_bytes(tables[0][b"stts"][12:16], "big")
    coded = [packet for part in packets for packet in part]
    starts = [len(head) + 8, len(head) + 8 + len(chunks[0])]
    keys = [number for number, packet in enumerate(coded, 1) if packet.is_key]
    both = {
        b"stsd": [0, 2, tables[0][b"stsd"][8:], tables[1][b"stsd"][8:]],
        b"stts": [0, 1, len(coded), ticks],
        b"stsc": [0, 2, 1, len(packets[0]), 1, 2, len(packets[1]), 2],
        b"stss": [0, len(keys), *keys],
        b"stsz": [0, 0, len(coded), *(len(packet.data) for packet in coded)],
        b"stco": [0, 2, *starts],
    }
    table = b"".join(_box(name, b"".join(map(_field, fields))) for name, fields in both.items())
    moov = _with_tables(files[0][b"moov"], table)
    path = folder / "described.mp4"
    path.write_bytes(head + _box(b"mdat", b"".join(chunks)) + _box(b"moov", moov))
    return path


_TO_TABLES = (b"trak", b"mdia", b"minf", b"stbl")


def _within(data: bytes, *names: bytes) -> bytes:
    for name in names:
        data = dict(_boxes(data))[name]
    return data


def _with_tables(data: bytes, table: bytes) -> bytes:
    """The same boxes with another stbl, and no edits."""
    changed = {
        name: table
        if name == b"stbl"
        else _with_tables(body, table)
        if name in _TO_TABLES
        else body
        for name, body in _boxes(data)
    }
    return b"".join(_box(name, body) for name, body in changed.items() if name != b"edts")


def _field(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else struct.pack(">I", value)


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def _boxes(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


# Damage


def overwrite(path: Path, packets: Iterable[Coded], *, keep: int, value: int) -> Path:
    """Overwrite these packets but for their first bytes."""
    data = bytearray(path.read_bytes())
    for coded in packets:
        start, stop = coded.pos + keep, coded.pos + len(coded.data)
        data[start:stop] = bytes([value]) * (stop - start)
    path.write_bytes(data)
    return path


def punch(path: Path, packet: Coded) -> Path:
    """Leave zeros shortly before this packet's end, as what was never fetched or written does."""
    data = bytearray(path.read_bytes())
    end = data.index(packet.data) + len(packet.data)
    data[end - 10 : end - 4] = bytes(6)
    path.write_bytes(data)
    return path


_PIECE = 188  # bytes of a transport stream's packet
_FIRST_PID = 0x100


def _pieces_of(data: bytes, picture: int) -> list[int]:
    """Where the packets of a transport stream lie that carry one picture."""
    carriers: list[list[int]] = []
    for at in range(0, len(data), _PIECE):
        head = int.from_bytes(data[at + 1 : at + 3], "big")
        if head & 0x1FFF != _FIRST_PID:
            continue
        if head & 0x4000:  # a picture begins
            carriers.append([])
        carriers[-1].append(at)
    return carriers[picture]


def lose_pieces(path: Path, picture: int, pieces: slice) -> Path:
    """Leave out some packets of a transport stream: of those that carry one picture."""
    data = path.read_bytes()
    lost = {*_pieces_of(data, picture)[pieces]}
    kept = (data[at : at + _PIECE] for at in range(0, len(data), _PIECE) if at not in lost)
    path.write_bytes(b"".join(kept))
    return path


def empty_pieces(path: Path, picture: int, *, keep: int) -> Path:
    """Overwrite a picture in a transport stream but for its first bytes."""
    data = bytearray(path.read_bytes())
    for at in _pieces_of(data, picture):
        start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if data[at + 1] & 0x40:
            start += 9 + data[start + 8]  # the head of what is cut into packets
        kept = min(keep, at + _PIECE - start)
        data[start + kept : at + _PIECE] = bytes(at + _PIECE - start - kept)
        keep -= kept
    path.write_bytes(data)
    return path


def with_sound(folder: Path, clip: Clip, *, suffix: str, video_at_s: float, sound_s: float) -> Path:
    """The clip beside a tone that starts with the file."""
    source = make(folder, clip, "silent")
    target = folder / f"sound{suffix}"
    ffmpeg(
        "-f", "lavfi", "-i", f"sine=duration={sound_s}", "-itsoffset", str(video_at_s),
        "-i", str(source), "-map", "1:v", "-map", "0:a", "-c:v", "copy", "-c:a", "aac", str(target),
    )  # fmt: skip
    return target


def cut_at_keyframe(source: Path, path: Path) -> Path:
    """What follows the second keyframe, as it was coded: what refers to the first part as well."""
    with av.open(str(source)) as whole, av.open(str(path), "w", format=FORMATS[path.suffix]) as cut:
        [stream] = whole.streams.video
        copied = cut.add_stream_from_template(stream)
        num_keys = 0
        for packet in whole.demux(stream):
            num_keys += packet.is_keyframe
            if packet.size and num_keys > 1:
                packet.stream = copied
                cut.mux(packet)
    return path


def joined(folder: Path, clips: Sequence[Clip]) -> Path:
    """Transport streams one behind the other, byte for byte."""
    parts = [make(folder, clip, f"part{place}") for place, clip in enumerate(clips)]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


# Cropping: a red border that no player shows.


def clean_aperture(folder: Path) -> Path:
    """A clip in mp4 whose border is outside its clean aperture."""
    padded = _bordered(folder, "pad=160:96:16:16:red", ".mp4")
    path = folder / "cropped.mp4"
    path.write_bytes(_with_clean_aperture(padded.read_bytes(), width=128, height=64))
    return path


def pixel_crop(folder: Path) -> Path:
    """A clip in Matroska that is to be cropped left and right.

    The display's width and height, written for pixels that are not square, make room for that.
    """
    padded, wide = _bordered(folder, "pad=160:64:16:0:red", ".mkv"), folder / "wide.mkv"
    # A checksum would not fit what is patched.
    ffmpeg("-i", str(padded), "-c", "copy", "-aspect", "5", "-write_crc32", "0", str(wide))
    data = wide.read_bytes()
    for display, cropped in ((b"\x54\xb0", b"\x54\xcc"), (b"\x54\xba", b"\x54\xdd")):
        at = data.index(display, data.index(b"\x16\x54\xae\x6b"))  # within Tracks
        size = data[at + 2] & 0x7F
        value = (16).to_bytes(size, "big")
        data = b"".join((data[:at], cropped, data[at + 2 : at + 3], value, data[at + 3 + size :]))
    path = folder / "cropped.mkv"
    path.write_bytes(data)
    return path


def _bordered(folder: Path, pad: str, suffix: str) -> Path:
    source, padded = make(folder, Clip()), folder / f"padded{suffix}"
    ffmpeg("-i", str(source), "-vf", pad, "-c:v", "libx264", "-qp", "0", str(padded))
    return padded


def _with_clean_aperture(data: bytes, *, width: int, height: int) -> bytes:
    """An mp4 whose `moov` comes last, with a clean aperture in the middle of its picture."""
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    at = data.index(b"avcC") - 4
    grown = bytearray(data[:at] + clap + data[at:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        size_at = data.index(name, data.rindex(b"moov")) - 4
        size = int.from_bytes(grown[size_at : size_at + 4], "big") + len(clap)
        grown[size_at : size_at + 4] = size.to_bytes(4, "big")
    return bytes(grown)
