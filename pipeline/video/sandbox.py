"""The parent's side of decoding: start a disposable child, believe nothing, kill it on time.

Covered: a child that crashes, hangs, eats memory, answers nonsense or never ends is a coded failure
of its video; its process, pipes and memory are gone when the reader is closed, finished or dropped.
Not covered: wrong pixels from a child that was taken over; what it may reach is listed in child.py.
"""

import json
import mmap
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl

import numpy as np
import torch
from torch import Tensor

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.video.presentation import Measured, Packets
from pipeline.video.source import OpenFile
from pipeline.video.wire import (
    Failure,
    FrameNote,
    Header,
    Kind,
    ProtocolError,
    ReadOrder,
    Run,
    from_json,
    receive,
    receive_blocks,
    send,
    send_runs,
    to_json,
    unpack_note,
)
from pipeline.video.zygote import fork_child, stop_zygote

_SIGNAL_CODES = {
    signal.SIGXCPU: (FailureCode.DECODE_TIMEOUT, "decoding used up its CPU time"),
    signal.SIGKILL: (FailureCode.DECODE_MEMORY, "the decoder was killed from outside"),
}


class Child:
    """One decoding process on one open file: `probe` it once, `order` frames as often as wanted."""

    def __init__(self, file: OpenFile, limits: DecodeLimits, *, may_thread: bool) -> None:
        self._limits = limits
        self._is_ready = False
        self._waited_s = 0.0
        self._memory: mmap.mmap | None = None
        with ExitStack() as starting:
            self._channel, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            starting.enter_context(self._channel)
            self._ring_fd = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            starting.callback(os.close, self._ring_fd)
            with far_end:
                self._leash = fork_child(
                    _settings(file.demuxer, limits, may_thread=may_thread),
                    file_fd=file.fd,
                    channel_fd=far_end.fileno(),
                    ring_fd=self._ring_fd,
                )
            starting.callback(self._leash.kill)
            self._held = starting.pop_all()

    def probe(self) -> tuple[Header, Packets]:
        """The header and what all packets say; none of it believed yet."""
        self._tell(Kind.PROBE)
        messages = self._messages()
        with _protocol_errors():
            kind, body = next(messages)
            if kind is not Kind.HEADER:
                raise ProtocolError("expected a header")
            header = from_json(Header, body)
            count = _checked_count(header.num_packets, 1, self._limits.max_packets)
            stamps = receive_blocks(messages, 8 * count)
            marks = receive_blocks(messages, count)
        return header, Packets(
            stamps=np.frombuffer(stamps, np.int64), marks=np.frombuffer(marks, np.uint8)
        )

    def measure(self, num_packets: int) -> Measured:
        """What decoding every packet shows; `probe` comes first."""
        self._tell(Kind.MEASURE)
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
        with suppress(BrokenPipeError, ConnectionResetError):  # noticed when it should answer
            send_runs(self._channel, runs)

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
        with suppress(BrokenPipeError, ConnectionResetError):  # noticed when it should answer
            send(self._channel, kind, body)

    def _messages(self) -> Iterator[tuple[Kind, bytes]]:
        """The child's messages as they come. Raises BadInput when it fails, dies or dawdles."""
        while True:
            kind, body = self._receive()
            if kind is Kind.FAILED:
                raise _reported(body)
            if kind is Kind.READY:
                self._is_ready = True
                continue
            yield kind, body

    def _receive(self) -> tuple[Kind, bytes]:
        # Only time spent waiting counts: a slow consumer does not use up the decoder's time.
        patience_s = min(self._limits.stall_s, self._limits.wall_s - self._waited_s)
        started = time.monotonic()
        try:
            self._channel.settimeout(max(patience_s, 0.001))
            return receive(self._channel)
        except TimeoutError as error:
            if not self._is_ready:  # it never saw the file
                stop_zygote()
                raise Transient(f"no decoder came to life in {patience_s:.0f} s") from error
            raise BadInput(
                FailureCode.DECODE_TIMEOUT,
                f"no frame for {patience_s:.0f} s; limits {self._limits.stall_s:.0f} s of silence, "
                f"{self._limits.wall_s:.0f} s in all",
            ) from error
        except (EOFError, ConnectionResetError) as error:
            raise self._cause_of_death() from error
        finally:
            self._waited_s += time.monotonic() - started

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


def _settings(demuxer: str, limits: DecodeLimits, *, may_thread: bool) -> str:
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
                "niceness": limits.niceness,
            },
        }
    )


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
