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
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum, IntFlag
from itertools import chain, islice
from typing import Annotated, Any, TypeVar, get_args, get_origin

MAX_BODY = 32 * 1024
MAX_DETAIL = 300
MAX_WORDS = 64  # in one list of a message
FROM_START = -1  # a run that begins with the first packet of the file
NO_STAMP = -(1 << 63)  # of a packet that has none

_PACKETS_PER_MESSAGE = 512  # of each list
_RUN = struct.Struct("<qqIIIII?")
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
    ORDER = 14  # parent: tell the same as far as coded headers do, without decoding; 0 if not


class Mark(IntFlag):
    """What the demuxer, and the first bits of it, say of a packet."""

    KEY = 1
    DISCARD = 2  # cut away by an edit list: decoded for others' sake
    HIDDEN = 4  # its header says that it shows no picture
    CORRUPT = 8
    BEHIND_LOSS = 16  # what stood before it in the stream is not in the file
    PACKED = 32  # it holds two pictures: another packet stands for the second
    UNENDED = 64  # its end is zeros, as if it had never been written


@dataclass(frozen=True, slots=True)
class Within:
    """The least and the most that a number may be."""

    least: float
    most: float


_Pixels = Annotated[int, Within(1, 1 << 20)]
_Term = Annotated[int, Within(1, (1 << 31) - 1)]  # of a fraction, as FFmpeg has them
_Seconds = Annotated[float, Within(-1e12, 1e12)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the container and the first decoded frame say. Checked by the parent, never believed."""

    codec: str
    pixel_format: str
    coded_width: _Pixels  # what is shown of it: without margins that a player crops off
    coded_height: _Pixels
    row_width: _Pixels  # in memory from row to row, those that are cropped off included
    matrix: tuple[int, ...]  # display matrix: 9 values, or none
    sar_num: int
    sar_den: int
    time_base_num: _Term
    time_base_den: _Term
    rate_num: _Term  # frames a second where stamps are worth nothing
    rate_den: _Term
    num_packets: int  # whose stamps and marks follow
    # Pictures that a decoder holds back to bring them in order.
    reorder_depth: Annotated[int, Within(0, 1000)]
    offset: Annotated[
        int, Within(0, 1 << 62)
    ]  # from the file's start to that of its video, in time_base
    last_duration: int  # of the picture stamped last, in time_base; 0 if unknown
    file_end_s: _Seconds  # from the file's start, sound included; 0 if unknown
    declared_frames: int  # 0 if the container has no count
    declared_duration_s: _Seconds  # 0 if unknown
    is_cut: bool  # the file ends before its own header says
    is_still: bool
    leaves_bits: bool  # behind the last block of a picture, where others' are damage
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
    leaves_bits: bool  # as in the Header
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
    losses: the packets on the way that are behind a loss. silent: those that show no picture,
    and so behind the last of them. unended: those without their end.
    """

    key: int
    key_stamp: int
    wanted: tuple[int, ...]
    stamps: tuple[int, ...]
    keys: tuple[int, ...] = ()
    losses: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    unended: tuple[int, ...] = ()

    def from_picture(self, number: int) -> "Run":
        """The same without the pictures that are shown before this one."""
        first = self.wanted.index(number)
        return replace(self, wanted=self.wanted[first:], stamps=self.stamps[first:])

    @property
    def lists(self) -> tuple[tuple[int, ...], ...]:
        return (self.wanted, self.stamps, self.keys, self.losses, self.silent, self.unended)


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
    """Build `kind` from a message's body.

    Raises ProtocolError unless there is every field and no other, each of its type, numbers within
    their bounds, words printable.
    """
    try:
        values: Any = json.loads(body)
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        built = kind(**values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"a {kind.__name__} cannot be read") from error
    for field in fields(kind):
        if not _is_a(field.type, getattr(built, field.name)):
            raise ProtocolError(f"{field.name} of a {kind.__name__} is not what it should be")
    return built


def _is_a(declared: Any, value: object) -> bool:
    bounds = Within(-(1 << 62), 1 << 62)
    if get_origin(declared) is Annotated:
        declared, bounds = get_args(declared)
    if get_origin(declared) is tuple:
        kind, _ = get_args(declared)
        return (
            isinstance(value, tuple)
            and len(value) <= MAX_WORDS
            and all(_is_a(kind, each) for each in value)
        )
    if declared is str:
        return isinstance(value, str) and len(value) <= MAX_DETAIL and value.isprintable()
    # In this order: a bool is an int to Python, and NaN is within nothing.
    if declared is bool or isinstance(value, bool):
        return declared is bool and isinstance(value, bool)
    kinds = (int, float) if declared is float else (int,)
    return isinstance(value, kinds) and bounds.least <= value <= bounds.most


def packed_runs(runs: list[Run]) -> Iterator[bytes]:
    """Bodies of the RUN messages of these runs, in order: long ones come in pieces. Then GO."""
    for run in runs:
        for first in range(0, max(map(len, run.lists)), _PACKETS_PER_MESSAGE):
            pieces = [each[first : first + _PACKETS_PER_MESSAGE] for each in run.lists]
            # The last list is what is left.
            counts = [len(piece) for piece in pieces[:-1]]
            head = _RUN.pack(run.key, run.key_stamp, *counts, first > 0)
            yield head + array("q", chain(*pieces)).tobytes()


def receive_runs(channel: socket.socket) -> list[Run]:
    """The child's end: what packed_runs packed."""
    runs: list[Run] = []
    while True:
        kind, body = receive(channel)
        if kind is Kind.GO:
            return runs
        if kind is not Kind.RUN:
            raise ProtocolError(f"expected a run, got {kind.name}")
        key, key_stamp, *counts, continues = _RUN.unpack_from(body)
        values = iter(array("q", body[_RUN.size :]))
        lists = [tuple(islice(values, count)) for count in (*counts, None)]
        if continues:
            lists = [first + rest for first, rest in zip(runs.pop().lists, lists, strict=True)]
        runs.append(Run(key, key_stamp, *lists))


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
