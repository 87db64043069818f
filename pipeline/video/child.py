"""The decoding child: a process that may crash, hang or be killed without harm to anybody.

Covered: its limits on memory, CPU time, files and processes are set before the first byte of the
file is read, and what confinement.py takes from it is gone; the environment is empty; the file is a
descriptor, not a name. FFmpeg gets no protocol at all; its parent has left the network where it
could (zygote_process).
Not covered: where seccomp could not be had, what its user may read or remove, and forks of root's,
whom the process limit does not bind; the parent is told.
"""

import errno
import json
import mmap
import os
import resource
import socket
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from pipeline.errors import BadInput, FailureCode
from pipeline.video.confinement import confine
from pipeline.video.ffmpeg.video_file import VideoFile
from pipeline.video.wire import (
    MAX_DETAIL,
    Failure,
    FrameNote,
    Kind,
    ReadOrder,
    Run,
    from_json,
    pack_note,
    receive,
    receive_runs,
    send,
    send_blocks,
    to_json,
)

FILE_FD = 0
MAX_OPEN_FILES = 32
_DISK = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EUCLEAN),
    *(errno.EREMOTEIO, errno.ENOTCONN),
}
_DISK_OF_READS = {errno.EACCES, errno.EINVAL}  # of a name, this process's confinement may be it


class Ring:
    """The child's end of the frame slots: fill the next free one, tell the parent, await credit."""

    def __init__(self, channel: socket.socket, memory: mmap.mmap, order: ReadOrder) -> None:
        self._channel = channel
        self._memory = memory
        self._order = order
        self._num_filled = 0
        self._num_free = order.num_slots
        self._index = 0

    def put(self, pixels: memoryview, stride: int) -> None:
        if self._num_free == 0:
            kind, _ = receive(self._channel)
            if kind is not Kind.CREDIT:
                raise EOFError("the parent gave up")
            self._num_free += 1
        slot = self._num_filled % self._order.num_slots
        start = slot * self._order.slot_bytes
        num_bytes = stride * self._order.height
        pixels = pixels[:num_bytes]  # the last row of a cropped picture may end earlier
        self._memory[start : start + len(pixels)] = pixels
        self._num_free -= 1
        self._num_filled += 1
        self._tell(FrameNote(self._index, slot, stride))

    def put_missing(self) -> None:
        self._tell(FrameNote(self._index, 0, -1))

    def _tell(self, note: FrameNote) -> None:
        send(self._channel, Kind.FRAME, pack_note(note))
        self._index += 1


def main(channel_fd: int, ring_fd: int, settings: str, *, is_offline: bool) -> int:
    """Serve orders until the parent hangs up. Returns the exit code."""
    channel = socket.socket(fileno=channel_fd)
    options = json.loads(settings)
    try:
        measures = _limit_self(**options.pop("limits"))
        send(channel, Kind.READY, ",".join((*measures, *["network"] * is_offline)).encode())
        with _blaming_the_disk():
            _serve(channel, ring_fd, lambda: VideoFile(FILE_FD, **options))
    except (EOFError, BrokenPipeError):
        return 0  # the parent hung up: nobody is left to tell
    except BadInput as error:
        return _report(channel, error.code, error.detail)
    except MemoryError:
        return _report(channel, FailureCode.DECODE_MEMORY, "decoding ran out of memory")
    except Exception as error:  # noqa: BLE001  the outermost frame: whatever it is, it is recorded
        return _report(channel, FailureCode.DECODER_CRASH, f"unexpected {type(error).__name__}")
    return 0


@contextmanager
def _blaming_the_disk() -> Iterator[None]:
    """What only a disk or a mount says is its fault, and none of this process."""
    try:
        yield
    except OSError as error:
        is_read = error.filename is None
        if error.errno not in _DISK and not (is_read and error.errno in _DISK_OF_READS):
            raise
        detail = f"the file cannot be read: {error.strerror}"
        raise BadInput(FailureCode.SOURCE_UNREADABLE, detail) from error


def _limit_self(
    *, memory_bytes: int, cpu_s: int, may_thread: bool, reads_by_name: bool, niceness: int
) -> tuple[str, ...]:
    """Returns the measures of confinement.py that hold."""
    if reads_by_name:  # numpy and a second FFmpeg: only when asked for, and none is opened later
        import_module("pipeline.video.decord_reader")
    os.nice(niceness)
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
    }
    if not may_thread:  # a thread counts as a process here
        limits[resource.RLIMIT_NPROC] = 0
    for name, value in limits.items():
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
    return confine(may_thread=may_thread, may_open=FILE_FD if reads_by_name else None)


def _serve(channel: socket.socket, ring_fd: int, open_video: Callable[[], VideoFile]) -> None:
    video: VideoFile | None = None
    memory: mmap.mmap | None = None
    while True:
        kind, body = receive(channel)
        if kind is Kind.CREDIT:
            continue  # for slots of an order that is complete
        if kind is Kind.PROBE:
            video = video or open_video()
            _probe(channel, video)
        elif kind is Kind.MEASURE:
            video = video or open_video()
            _measure(channel, video)
        elif kind is Kind.ORDER:
            video = video or open_video()
            _tell_measured(channel, *video.coded_order())
        elif kind is Kind.READ:
            order = from_json(ReadOrder, body)
            runs = receive_runs(channel)
            memory = memory or mmap.mmap(ring_fd, order.num_slots * order.slot_bytes)
            ring = Ring(channel, memory, order)
            if order.reader == "decord":
                _read_with_decord(runs, order, ring)
            else:
                video = video or open_video()
                _read(video, runs, order, ring)
            send(channel, Kind.DONE)


def _probe(channel: socket.socket, video: VideoFile) -> None:
    header, stamps, marks = video.scan()
    send(channel, Kind.HEADER, to_json(header))
    send_blocks(channel, memoryview(stamps).cast("B"))
    send_blocks(channel, memoryview(marks))


def _measure(channel: socket.socket, video: VideoFile) -> None:
    outputs, is_refused = video.measure(lambda: send(channel, Kind.READY))
    _tell_measured(channel, outputs, is_refused)


def _tell_measured(channel: socket.socket, outputs: "array[int]", is_refused: bytearray) -> None:
    send(channel, Kind.MEASURED, str(len(outputs)).encode())
    send_blocks(channel, memoryview(outputs).cast("B"))
    send_blocks(channel, memoryview(is_refused))


def _read(video: VideoFile, runs: list[Run], order: ReadOrder, ring: Ring) -> None:
    video.use_threads(order.threads)
    video.allow_left_bits(order.leaves_bits)
    for run in runs:
        for frame in video.frames(run, may_skip=order.may_skip):
            if frame is None:
                ring.put_missing()
            else:
                ring.put(*video.rgb(frame, width=order.width, height=order.height))


def _read_with_decord(runs: list[Run], order: ReadOrder, ring: Ring) -> None:
    from pipeline.video.decord_reader import read  # imported by now, where it may be

    for pixels in read(FILE_FD, runs, order):
        ring.put(pixels, order.width * 3)


def _report(channel: socket.socket, code: FailureCode, detail: str) -> int:
    try:
        send(channel, Kind.FAILED, to_json(Failure(code=code.value, detail=detail[:MAX_DETAIL])))
    except OSError:
        return 1
    return 1
