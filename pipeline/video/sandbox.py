"""The parent's side of decoding: start a disposable child, believe nothing, kill it on time.

Covered: a child that crashes, hangs, eats memory, answers nonsense or never ends is a coded failure
of its video; its process, pipes and memory are gone when the reader is closed, finished or dropped.
Not covered: wrong pixels from a child that was taken over; what it may reach is listed in child.py.
"""

import json
import mmap
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.video.confinement import MEASURES
from pipeline.video.presentation import Measured, Packets
from pipeline.video.source import OpenFile
from pipeline.video.wire import (
    NO_STAMP,
    Failure,
    FrameNote,
    Header,
    Kind,
    ProtocolError,
    ReadOrder,
    Run,
    from_json,
    packed_runs,
    receive,
    receive_blocks,
    send,
    to_json,
    unpack_note,
)
from pipeline.video.zygote import fork_child, stop_zygote

MAX_STAMP = 1 << 60
_FLAG = re.compile("[a-z0-9_]{1,40}")
_SIGNAL_CODES = {
    signal.SIGXCPU: (FailureCode.DECODE_TIMEOUT, "decoding used up its CPU time"),
    signal.SIGKILL: (FailureCode.DECODE_MEMORY, "the decoder was killed from outside"),
}


@dataclass(slots=True)
class Waited:
    """Time spent waiting for the decoders of one video."""

    seconds: float = 0.0


class Child:
    """One decoding process on one open file: `probe` it once, `order` frames as often as wanted.

    waited: shared by all children of a video, whose limits are for all of them.
    """

    def __init__(
        self,
        file: OpenFile,
        limits: DecodeLimits,
        *,
        waited: Waited | None = None,
        may_thread: bool = False,
        reads_by_name: bool = False,
    ) -> None:
        self.measures: tuple[str, ...] = ()  # of confinement.py; known once it has answered
        self._limits = limits
        self._is_ready = False
        self._waited = waited or Waited()
        self._memory: mmap.mmap | None = None
        with ExitStack() as starting:
            self._channel, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            starting.enter_context(self._channel)
            self._ring_fd = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            starting.callback(os.close, self._ring_fd)
            with far_end:
                self._leash = fork_child(
                    _settings(
                        file.demuxer, limits, may_thread=may_thread, reads_by_name=reads_by_name
                    ),
                    file_fd=file.fd,
                    channel_fd=far_end.fileno(),
                    ring_fd=self._ring_fd,
                )
            starting.callback(self._leash.kill)
            self._held = starting.pop_all()

    def begin(self) -> None:
        """Wait until it has confined itself; what is asked of it later would wait for that too."""
        kind, body = self._receive()
        with _protocol_errors():
            if kind is not Kind.READY:
                raise ProtocolError("expected it to be ready")
            self._be_ready(body)

    def probe(self) -> tuple[Header, Packets]:
        """The header and what all packets say; none of it believed yet."""
        self._tell(Kind.PROBE)
        messages = self._messages()
        with _protocol_errors():
            kind, body = next(messages)
            if kind is not Kind.HEADER:
                raise ProtocolError("expected a header")
            header = from_json(Header, body)
            _require_possible(header, self._limits)
            count = _checked_count(header.num_packets, 1, self._limits.max_packets)
            stamps = receive_blocks(messages, 8 * count)
            marks = receive_blocks(messages, count)
        return header, Packets(stamps=_checked_stamps(stamps), marks=np.frombuffer(marks, np.uint8))

    def measure(self, num_packets: int) -> Measured:
        """What decoding every packet shows; `probe` comes first."""
        return self._measured(Kind.MEASURE, num_packets)

    def coded_order(self, num_packets: int) -> Measured | None:
        """The same by coded headers alone, as far as these say it; `probe` comes first."""
        found = self._measured(Kind.ORDER, num_packets)
        return replace(found, is_decoded=False) if len(found.outputs) else None

    def _measured(self, kind_of_order: Kind, num_packets: int) -> Measured:
        self._tell(kind_of_order)
        messages = self._messages()
        with _protocol_errors():
            kind, body = next(messages)
            if kind is not Kind.MEASURED or not body.isdigit():
                raise ProtocolError("expected a measurement")
            count = _checked_count(int(body[:20]), 0, 2 * num_packets + 1)
            outputs = np.frombuffer(receive_blocks(messages, 8 * count), np.int64)
            is_refused = np.frombuffer(receive_blocks(messages, num_packets), np.uint8) != 0
            if ((outputs < 0) | (outputs >= num_packets)).any():
                raise ProtocolError("a picture of no packet")
        return Measured(outputs=outputs, is_refused=is_refused)

    def order(self, order: ReadOrder, runs: list[Run]) -> None:
        """Let the child begin; it decodes ahead until all slots are full."""
        self._map_ring(order)
        self._tell(Kind.READ, to_json(order))
        for run in packed_runs(runs):
            self._tell(Kind.RUN, run)
        self._tell(Kind.GO)

    def frames(self, order: ReadOrder, num_frames: int) -> Iterator[Tensor | None]:
        """What was ordered, in order: (H, W, 3) uint8, valid until the next is taken, or None."""
        if self._memory is None:
            raise RuntimeError("nothing was ordered")
        messages = self._messages()
        with _protocol_errors():
            for index in range(num_frames):
                kind, body = next(messages)
                note = _checked_note(kind, body, index, order)
                yield None if note.is_missing else _view(self._memory, note, order)
                if not note.is_missing:
                    self._tell(Kind.CREDIT)
            if next(messages)[0] is not Kind.DONE:
                raise ProtocolError("more frames than were ordered")

    def close(self) -> None:
        """Kill the process, whatever it is doing, and free what it held."""
        self._held.close()

    def _tell(self, kind: Kind, body: bytes = b"") -> None:
        """Raises BadInput or Transient when the child takes nothing for too long."""
        with self._patience(), suppress(BrokenPipeError, ConnectionResetError):
            send(self._channel, kind, body)  # who is gone is noticed when it should answer

    def _messages(self) -> Iterator[tuple[Kind, bytes]]:
        """The child's messages as they come. Raises BadInput when it fails, dies or dawdles."""
        while True:
            kind, body = self._receive()
            if kind is Kind.FAILED:
                raise _reported(body)
            if kind is Kind.READY:
                self._be_ready(body)
                continue
            yield kind, body

    def _be_ready(self, body: bytes) -> None:
        if not self._is_ready:  # not a byte of the file was read so far
            self.measures = _checked_measures(body)
        self._is_ready = True

    def _receive(self) -> tuple[Kind, bytes]:
        try:
            with self._patience():
                return receive(self._channel)
        except (EOFError, ConnectionResetError) as error:
            raise self._cause_of_death() from error

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Around every wait for the child: as long as the limits leave.

        Only time spent waiting counts: a slow consumer does not use up the decoder's time.
        """
        patience_s = min(self._limits.stall_s, self._limits.wall_s - self._waited.seconds)
        started = time.monotonic()
        try:
            self._channel.settimeout(max(patience_s, 0.001))
            yield
        except TimeoutError as error:
            # It never saw the file; where no time was left, those before it had, and used it up.
            if not self._is_ready and patience_s > 0:
                stop_zygote()
                raise Transient(f"no decoder came to life in {patience_s:.0f} s") from error
            raise BadInput(
                FailureCode.DECODE_TIMEOUT,
                f"no frame for {patience_s:.0f} s; limits {self._limits.stall_s:.0f} s of silence, "
                f"{self._limits.wall_s:.0f} s in all",
            ) from error
        finally:
            self._waited.seconds += time.monotonic() - started

    def _cause_of_death(self) -> BadInput | Transient:
        try:
            code = self._leash.exit_code()
        except TimeoutError:
            return BadInput(FailureCode.DECODER_PROTOCOL, "the decoder hung up but lives")
        except Transient as error:
            return error
        if not self._is_ready:  # it never saw the file
            return Transient(f"the decoder could not start: exit code {code}")
        if -code in _SIGNAL_CODES:
            return BadInput(*_SIGNAL_CODES[signal.Signals(-code)])
        return BadInput(FailureCode.DECODER_CRASH, f"the decoder ended with exit code {code}")

    def _map_ring(self, order: ReadOrder) -> None:
        """Fix the shared memory's size: shrunk by the child it would fault the parent."""
        if self._memory is None:
            num_bytes = order.num_slots * order.slot_bytes
            os.ftruncate(self._ring_fd, num_bytes)
            fcntl(self._ring_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
            self._memory = self._held.enter_context(mmap.mmap(self._ring_fd, num_bytes))


def measures_held() -> tuple[str, ...]:
    """Which of MEASURES hold this process's children: one is started to see. Raises Transient."""
    with Path(os.devnull).open("rb") as nothing:
        file = OpenFile.of(nothing.fileno(), demuxer="")
        with closing(Child(file, DecodeLimits())) as child:
            child.begin()
            return child.measures


def _settings(demuxer: str, limits: DecodeLimits, *, may_thread: bool, reads_by_name: bool) -> str:
    return json.dumps(
        {
            "demuxer": demuxer,
            "max_pixels": limits.max_pixels,
            "max_packets": limits.max_packets,
            "threads": limits.threads,
            "limits": {
                "memory_bytes": limits.memory_bytes,
                "cpu_s": int(limits.wall_s * limits.threads) + 1,
                "may_thread": may_thread,
                "reads_by_name": reads_by_name,
                "niceness": limits.niceness,
            },
        }
    )


def _checked_measures(body: bytes) -> tuple[str, ...]:
    measures = tuple(body.decode("ascii", "replace").split(",")) if body else ()
    if not set(measures) <= set(MEASURES):
        raise ProtocolError("there is no such measure")
    return measures


def _require_possible(header: Header, limits: DecodeLimits) -> None:
    """Raise ProtocolError for what no file can make an honest child say."""
    is_possible = (
        header.coded_width <= header.row_width
        and header.row_width * header.coded_height <= limits.max_pixels
        and len(header.matrix) in (0, 9)
        and all(_FLAG.fullmatch(flag) for flag in header.flags)
    )
    if not is_possible:
        raise ProtocolError("there is no such picture")


def _checked_stamps(data: bytes) -> NDArray[np.int64]:
    """BadInput for stamps with which nobody can count."""
    stamps = np.frombuffer(data, np.int64)
    is_far = (stamps > MAX_STAMP) | ((stamps < -MAX_STAMP) & (stamps != NO_STAMP))
    if is_far.any():
        raise BadInput(FailureCode.NOT_DECODABLE, "its time stamps are beyond any length")
    return stamps


def _checked_count(count: int, least: int, most: int) -> int:
    if not least <= count <= most:
        raise ProtocolError(f"{count} packets; limit {most}")
    return count


def _reported(body: bytes) -> BadInput:
    """The failure the child reports, if it is one that exists."""
    with _protocol_errors():
        failure = from_json(Failure, body)
        if failure.code not in set(FailureCode):
            raise ProtocolError("there is no such failure code")
        detail = "".join(c if c.isprintable() else "?" for c in failure.detail)
        return BadInput(FailureCode(failure.code), detail)


def _checked_note(kind: Kind, body: bytes, index: int, order: ReadOrder) -> FrameNote:
    if kind is not Kind.FRAME:
        raise ProtocolError(f"expected frame {index}, got {kind.name}")
    note = unpack_note(body)
    fits = order.width * 3 <= note.stride <= order.slot_bytes // order.height
    if note.index != index or note.slot >= order.num_slots or not (note.is_missing or fits):
        raise ProtocolError(f"frame {index} is announced as {note}")
    return note


def _view(memory: mmap.mmap, note: FrameNote, order: ReadOrder) -> Tensor:
    """The slot as (H, W, 3) uint8, without a copy."""
    rows = torch.frombuffer(
        memory,
        dtype=torch.uint8,
        count=order.height * note.stride,
        offset=note.slot * order.slot_bytes,
    ).view(order.height, note.stride)
    return rows[:, : order.width * 3].view(order.height, order.width, 3)


@contextmanager
def _protocol_errors() -> Iterator[None]:
    try:
        yield
    except ProtocolError as error:
        raise BadInput(FailureCode.DECODER_PROTOCOL, str(error)) from error
