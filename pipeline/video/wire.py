"""What the decoding child and its parent say to each other. No torch, no av: the child starts fast.

One SEQPACKET socket, one message per packet: a kind byte, then its body. The kernel keeps message
boundaries, so there is no length to trust; whatever exceeds MAX_BODY is cut off and refused.
Pixels never travel here: the child writes them into a ring of slots in shared memory.
"""

import json
import socket
import struct
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import IntEnum, IntFlag
from typing import Any, TypeVar

MAX_BODY = 32 * 1024
MAX_DETAIL = 300
FROM_START = -1  # a run that begins with the first packet of the file
NO_STAMP = -(1 << 63)  # of a packet that has none

_PACKETS_PER_MESSAGE = 1024
_RUN = struct.Struct("<qqI?")
_FRAME = struct.Struct("<IIi")


class ProtocolError(Exception):
    """The other side said something that cannot be."""


class Kind(IntEnum):
    PROBE = 1  # parent: read the header and the packets' stamps and marks
    READ = 2  # parent: a ReadOrder follows
    RUN = 3  # parent: one (part of a) run of wanted packets
    GO = 4  # parent: all runs were sent
    CREDIT = 5  # parent: one slot is free again
    HEADER = 6  # child: Header
    INDEX = 7  # child: a block of stamps, of marks, of what a measurement found
    FRAME = 8  # child: one wanted frame, in a slot or missing
    DONE = 9  # child: the order is complete
    FAILED = 10  # child: Failure; nothing follows
    READY = 11  # child: started, its limits set, the file untouched; later: still at work
    MEASURE = 12  # parent: decode everything and tell which packets give pictures, in which order
    MEASURED = 13  # child: how many pictures came out


class Mark(IntFlag):
    """What the demuxer, and the first bits of it, say of a packet."""

    KEY = 1
    DISCARD = 2  # cut away by an edit list: decoded for others' sake
    HIDDEN = 4  # its header says that it shows no picture
    CORRUPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the container and the first decoded frame say. Checked by the parent, never believed."""

    codec: str
    pixel_format: str
    coded_width: int  # what is shown of it: without margins that a player crops off
    coded_height: int
    row_width: int  # pixels in memory from row to row, those that are cropped off included
    matrix: tuple[int, ...]  # display matrix: 9 values, or none
    sar_num: int
    sar_den: int
    time_base_num: int
    time_base_den: int
    rate_num: int  # frames a second where stamps are worth nothing
    rate_den: int
    num_packets: int  # whose stamps and marks follow
    reorder_depth: int  # pictures that a decoder holds back to bring them in order
    offset: int  # from the file's start to that of its video, in time_base
    last_duration: int  # of the picture stamped last, in time_base; 0 if unknown
    file_end_s: float  # from the file's start, sound included; 0 if unknown
    declared_frames: int  # 0 if the container has no count
    declared_duration_s: float  # 0 if unknown
    is_cut: bool  # the file ends before its own header says
    is_still: bool
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOrder:
    """How frames are to be delivered: every frame as width x height RGB, into num_slots slots."""

    reader: str
    width: int
    height: int
    num_slots: int
    slot_bytes: int
    num_indexed: int  # frames in the index
    threads: int
    may_skip: bool  # what no other picture refers to can be left out packet by packet


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the child gave up: a FailureCode's value and one sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Run:
    """Packets whose pictures are wanted, in order of presentation, decoded in one go.

    Packets are known by their number in decoding order: stamps may be missing, repeated or wrong.
    key: number and stamp of the packet to begin with. stamps: those of the wanted packets, so that
    a seek which loses count is noticed. keys: the keyframes on the way, as the index knows them.
    """

    key: int
    key_stamp: int
    wanted: tuple[int, ...]
    stamps: tuple[int, ...]
    keys: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameNote:
    """Frame `index` of the order is in `slot`, its rows `stride` bytes apart; -1: it is missing."""

    index: int
    slot: int
    stride: int

    @property
    def is_missing(self) -> bool:
        return self.stride < 0


Message = TypeVar("Message", Header, ReadOrder, Failure)


def send(channel: socket.socket, kind: Kind, body: bytes = b"") -> None:
    """Send one message whole; blocks while the other side's queue is full."""
    channel.sendall(bytes([kind]) + body)


def receive(channel: socket.socket) -> tuple[Kind, bytes]:
    """Take one message. Raises EOFError when the other side is gone, ProtocolError on nonsense."""
    packet = channel.recv(MAX_BODY + 2)
    if not packet:
        raise EOFError("the other side is gone")
    if len(packet) > MAX_BODY + 1:
        raise ProtocolError("a message is too long")
    try:
        return Kind(packet[0]), packet[1:]
    except ValueError as error:
        raise ProtocolError(f"there is no message kind {packet[0]}") from error


def to_json(value: Header | ReadOrder | Failure) -> bytes:
    return json.dumps(asdict(value)).encode()


def from_json(kind: type[Message], body: bytes) -> Message:
    """Build `kind` from a message's body. Raises ProtocolError unless every field has its type."""
    try:
        values: Any = json.loads(body)
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        built = kind(**values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"a {kind.__name__} cannot be read") from error
    for field in fields(kind):
        _require_type(field.name, getattr(built, field.name), field.type)
    return built


def _require_type(name: str, value: object, declared: object) -> None:
    is_right = {
        str: isinstance(value, str) and len(value) <= MAX_DETAIL,
        bool: isinstance(value, bool),
        int: type(value) is int and abs(value) < 1 << 62,
        float: type(value) in (int, float) and abs(float(value)) < 1e12,  # type: ignore[arg-type]
        tuple[int, ...]: isinstance(value, tuple) and all(type(v) is int for v in value),
        tuple[str, ...]: isinstance(value, tuple) and all(type(v) is str for v in value),
    }[declared]  # type: ignore[index]
    if not is_right:
        raise ProtocolError(f"{name} is not a {declared}")


def send_runs(channel: socket.socket, runs: list[Run]) -> None:
    """Send the runs in order, long ones in pieces, and GO."""
    for run in runs:
        longest = max(len(run.wanted), len(run.keys))
        for first in range(0, longest, _PACKETS_PER_MESSAGE):
            piece = slice(first, first + _PACKETS_PER_MESSAGE)
            values = array("q", run.wanted[piece] + run.stamps[piece] + run.keys[piece])
            head = _RUN.pack(run.key, run.key_stamp, len(run.wanted[piece]), first > 0)
            send(channel, Kind.RUN, head + values.tobytes())
    send(channel, Kind.GO)


def receive_runs(channel: socket.socket) -> list[Run]:
    """The child's end of send_runs."""
    runs: list[Run] = []
    while True:
        kind, body = receive(channel)
        if kind is Kind.GO:
            return runs
        if kind is not Kind.RUN:
            raise ProtocolError(f"expected a run, got {kind.name}")
        key, key_stamp, count, continues = _RUN.unpack_from(body)
        values = tuple(array("q", body[_RUN.size :]))
        wanted, stamps, keys = values[:count], values[count : 2 * count], values[2 * count :]
        if continues:
            last = runs.pop()
            wanted, stamps, keys = last.wanted + wanted, last.stamps + stamps, last.keys + keys
        runs.append(Run(key, key_stamp, wanted, stamps, keys))


def send_blocks(channel: socket.socket, data: memoryview) -> None:
    """Send bytes as INDEX messages."""
    for first in range(0, len(data), MAX_BODY):
        send(channel, Kind.INDEX, bytes(data[first : first + MAX_BODY]))


def receive_blocks(messages: Iterator[tuple[Kind, bytes]], num_bytes: int) -> bytes:
    """The parent's end of send_blocks: exactly num_bytes. Raises ProtocolError otherwise."""
    data = bytearray()
    while len(data) < num_bytes:
        kind, body = next(messages)
        if kind is not Kind.INDEX or not body:
            raise ProtocolError("the packet index is incomplete")
        data += body
    if len(data) != num_bytes:
        raise ProtocolError("the packet index is too long")
    return bytes(data)


def pack_note(note: FrameNote) -> bytes:
    return _FRAME.pack(note.index, note.slot, note.stride)


def unpack_note(body: bytes) -> FrameNote:
    try:
        return FrameNote(*_FRAME.unpack(body))
    except struct.error as error:
        raise ProtocolError("a frame note has the wrong size") from error
