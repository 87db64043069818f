"""What a decoder that was taken over would try, in the place of a real one.

`python -m tests.places PLACE FOLDER [NAME...]` tries all of it, or what is named, as a process in
that place, and prints JSON: the measures that hold, and per escape what came of it: an error's
name, "killed", or "escaped".
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, Transient
from pipeline.video import zygote
from pipeline.video.confinement import hide_process
from pipeline.video.sandbox import Child
from pipeline.video.source import OpenFile

# Run in the child, where `me`, `parent`, `folder`, `port`, `call` and `anywhere` are known. `call`
# is a system call by number that raises OSError, its arguments such that a kernel that lets it
# through has something to do.
ESCAPES = {
    # files
    "read a file": "open('/etc/passwd').read()",
    "read the reader's environment": "open(f'/proc/{parent}/environ', 'rb').read()",
    "read the reader's memory": "open(f'/proc/{parent}/mem', 'rb')",
    "list a folder": "os.listdir(folder)",
    "write to a file": "open(folder + '/canary', 'ab')",
    "make a file": "open(folder + '/new', 'wb')",
    "make a file without a name": "os.open(folder, os.O_TMPFILE | os.O_RDWR)",
    "write by creat": "call(85, (folder + '/canary').encode(), 0o600)",
    "write by open": "call(2, (folder + '/canary').encode(), 1)",
    "write by openat2": "call(437, -100, (folder + '/canary').encode(), bytes(24), 24)",
    "truncate": "os.truncate(folder + '/canary', 0)",
    "truncate the frames": "os.ftruncate(ring, 0)",
    "allocate": "os.posix_fallocate(ring, 0, 1 << 20)",
    "remove": "os.unlink(folder + '/canary')",
    "rename": "os.rename(folder + '/canary', folder + '/gone')",
    "link": "os.link(folder + '/canary', folder + '/link')",
    "symlink": "os.symlink('/', folder + '/link')",
    "make a folder": "os.mkdir(folder + '/new')",
    "make a pipe": "os.mkfifo(folder + '/new')",
    "change a mode": "os.chmod(folder + '/canary', 0)",
    "change an owner": "os.chown(folder + '/canary', 1, 1)",
    "change a date": "os.utime(folder + '/canary', (0, 0))",
    "set an attribute": "os.setxattr(folder + '/canary', 'user.x', b'x')",
    "change folder": "os.chdir(folder)",
    "change root": "os.chroot(folder)",
    "mount": "call(165, b'none', folder.encode(), b'tmpfs', 0, 0)",
    "open a tree": "call(428, -100, folder.encode(), 1)",
    "a handle of a file": "call(303, -100, folder.encode(), bytes(128), bytes(8), 0)",
    "memory as a file": "os.memfd_create('x')",
    "watch files": "call(294, 0)",
    # network
    "TCP": "socket.create_connection(('127.0.0.1', port), 5)",
    "TCP without a name": "socket.socket()",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "UNIX": "socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "socket.socketpair()",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "pass a descriptor": "call(46, channel, bytes(56), 0)",
    # processes
    "fork": "os.fork()",
    "vfork": "call(58)",
    "clone": "call(56, signal.SIGCHLD, 0, 0, 0, 0)",
    "clone with a user namespace": "call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)",
    "clone3": "call(435, bytes(64), 64)",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec a descriptor": "call(322, 0, b'', None, None, 0x1000)",
    "a session of its own": "os.setsid()",
    "a group of its own": "os.setpgid(0, 0)",
    "outlive the zygote": "prctl(1, 0)",
    "be looked into": "prctl(4, 1)",
    "a name": "prctl(15, b'x')",
    "another user": "os.setuid(12345)",
    "another group": "os.setgroups([])",
    # other processes
    "kill the reader": "os.kill(parent, 0)",
    "kill all": "os.kill(-1, 0)",
    "kill the group": "os.kill(0, 0)",
    "kill a thread": "call(200, parent, 0)",
    "kill a thread of another": "call(234, parent, parent, 0)",
    "kill with more bits": "call(62, ctypes.c_long((me << 32) | parent), 0)",
    "queue a signal": "call(129, parent, 0, bytes(128))",
    "a descriptor of a process": "os.pidfd_open(parent)",
    "signals of a descriptor": "fcntl.fcntl(channel, fcntl.F_SETOWN, parent)",
    "trace": "call(101, 16, parent, 0, 0)",
    "seize": "call(101, 0x4206, parent, 0, 0)",
    "read memory": "call(310, parent, vector, 1, remote, 1, 0)",
    "write memory": "call(311, parent, vector, 1, remote, 1, 0)",
    "compare": "call(312, parent, me, 0, 0, 0)",
    "limit another": "call(302, parent, 7, bytes(16), 0)",
    "raise a limit": "call(302, 0, 0, bytes([255] * 16), 0)",
    "priority of another": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "cores of another": "os.sched_setaffinity(parent, {0})",
    "memory of another": "call(256, parent, 1, bytes(8), bytes(8))",
    "shared memory": "call(29, 0, 4096, 0o1600)",
    "a queue": "call(68, 0, 0o1600)",
    # the kernel
    "user namespace": "unshare(0x10000000)",
    "mount namespace": "unshare(0x20000)",
    "network namespace": "unshare(0x40000000)",
    "process namespace": "unshare(0x20000000)",
    "enter a namespace": "call(308, 0, 0)",
    "io_uring": "call(425, 8, bytes(120))",
    "asynchronous reads": "call(206, 8, bytes(8))",
    "page faults": "call(323, 1)",
    "BPF": "call(321, 0, bytes(128), 128)",
    "performance counters": "call(298, bytes(128), 0, -1, -1, 0)",
    "keys": "call(248, b'user', b'x', b'x', 1, -2)",
    "key control": "call(250, 0, -2, 1)",
    "another filter": "call(317, 1, 0, filter)",
    "Landlock": "call(444, bytes(8), 8, 0)",
    "personality": "call(135, 0x40000)",
    "ports": "call(172, 3)",
    "the log": "call(103, 3, bytes(16), 16)",
    "the clock": "call(227, 0, bytes(16))",
    "the host's name": "socket.sethostname('x')",
    "terminals": "call(16, 0, 0x5412, b'x')",
    # code
    "memory with code": "mmap.mmap(-1, 4096, prot=7)",
    "code from a file": "mmap.mmap(0, 1, flags=mmap.MAP_PRIVATE, prot=5)",
    "code from memory": "call(10, anywhere, 4096, 5)",
    "code by another key": "call(329, anywhere, 4096, 5, 0)",
    "i386": "i386()",
    "x32": "call(0x40000000 | 39)",
}

IN_CHILD = """
import sys
split = sys.argv.index("--")
sys.path[:0] = sys.argv[1:split]
import ctypes, errno, fcntl, mmap, os, signal, socket
from pipeline.video import child, zygote_process
from pipeline.errors import BadInput, FailureCode
folder, port, parent, escapes = {settings!r}
libc = ctypes.CDLL(None, use_errno=True)
anywhere = ctypes.c_void_p(0)
i386 = code = None

def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result

def call(number, *arguments):
    return checked(libc.syscall(number, *arguments))

def prctl(*arguments):
    return checked(libc.prctl(*arguments, 0, 0, 0))

def unshare(flags):
    return checked(libc.unshare(flags))

def attempt(fd, **_):
    name = os.pread(0, 1000, 0).decode()
    try:
        eval(escapes[name])
        code = "escaped"
    except OSError as error:
        code = errno.errorcode.get(error.errno, str(error))
    raise BadInput(FailureCode.NOT_DECODABLE, code)

def main(channel_fd, ring_fd, *arguments, **named):
    global me, channel, ring, anywhere, i386, code, vector, remote, filter
    me, channel, ring, filter = os.getpid(), channel_fd, ring_fd, bytes(16)
    page = mmap.mmap(-1, 4096)
    anywhere = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex("53b814000000cd805bc3"))  # getpid by int 0x80
    i386 = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    vector = ctypes.c_char_p(anywhere.value.to_bytes(8, "little") + (8).to_bytes(8, "little"))
    remote = vector  # the same address: what was forked and exec'ed alike may have it
    return plain(channel_fd, ring_fd, *arguments, **named)

plain, child.main, child.VideoFile = child.main, main, attempt
sys.exit(zygote_process.main(int(sys.argv[split + 1])))
"""


def try_all(folder: Path, names: Iterable[str], *, reads_by_name: bool) -> dict[str, object]:
    """Every escape, each by a child of its own, as one for PyAV or for decord."""
    hide_process()  # as a reader does
    (folder / "canary").write_text("sings")
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = str(folder), server.getsockname()[1], os.getpid(), ESCAPES
        zygote.PROGRAM = IN_CHILD.format(settings=settings)
        measures: tuple[str, ...] = ()
        outcomes = {}
        for name in names:
            outcomes[name], measures = _attempt(name, folder, reads_by_name=reads_by_name)
        zygote.stop_zygote()
        server.setblocking(False)
        try:
            server.accept()
            outcomes["TCP"] = "escaped"
        except BlockingIOError:
            pass
    if (folder / "canary").read_text() != "sings" or os.listdir(folder) != ["canary"]:
        outcomes["files"] = "escaped"
    return {"measures": measures, "outcomes": outcomes}


def _attempt(name: str, folder: Path, *, reads_by_name: bool) -> tuple[str, tuple[str, ...]]:
    with tempfile.NamedTemporaryFile(dir=folder.parent) as stream:
        stream.write(name.encode())
        stream.flush()
        fd = os.open(stream.name, os.O_RDONLY)
    file = OpenFile.of(fd, demuxer="mov")
    limits = DecodeLimits(stall_s=20.0)
    # With threads: one without may do less.
    with closing(Child(file, limits, may_thread=True, reads_by_name=reads_by_name)) as child:
        try:
            child.probe()
        except BadInput as error:
            return (error.detail if error.code == "not_decodable" else "killed"), child.measures
        except Transient as error:
            return f"lost: {error}", child.measures
        finally:
            os.close(fd)
    return "escaped", child.measures


if __name__ == "__main__":
    place, folder, *names = sys.argv[1:]
    by_name = place == "for decord"
    print(json.dumps(try_all(Path(folder), names or ESCAPES, reads_by_name=by_name)))
