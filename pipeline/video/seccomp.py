"""What a decoding child may still ask of the kernel: a short list of system calls, nothing else.

Covered, on x86-64 and ARM64: memory without code in it, reading what is open already, the channel,
time, threads of its own and signals to itself. All else is refused, calls of later kernels
included: sockets, files (to open, write, cut, remove or rename), processes, other processes'
memory, signals to others, namespaces, mounts, keys, io_uring, memfd, prctl. A call in another ABI
(i386, x32) ends the child.
Not covered: whether a path exists (fstat is a stat of a path on x86-64), what time it is, and
faults of the kernel in the calls that stay. A child for decord may open files for reading, since
decord takes a name; which ones is Landlock's to say.

A filter of our own: pyseccomp needs a libseccomp that not every machine has, and is of 2021.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

_SET_FILTER, _OF_ALL_THREADS = 1, 1  # linux/seccomp.h
_ALLOW, _KILL, _REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # linux/bpf_common.h: of 32 bits
_IF_EQUAL, _IF_NOT_BELOW = 0x15, 0x35
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they lie in seccomp_data
_X32 = 0x4000_0000
_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH: fstat as newfstatat
_THREAD = 0x3D_0F00  # what pthread_create asks of clone, and nothing else
_DETACHED = 0x40_0000  # musl asks for this too; the kernel does not look at it
_MAY_CHANGE = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000  # O_TMPFILE's own
_INSTRUCTION = Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class Machine:
    """A kernel's name for its own ABI, and the numbers of the calls."""

    audit_arch: int
    seccomp: int
    numbers: dict[str, int]


def _numbers(table: str) -> dict[str, int]:
    words = table.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


# From asm/unistd_64.h and asm-generic/unistd.h.
MACHINES = {
    "x86_64": Machine(
        0xC000_003E,
        317,
        _numbers(
            """read 0 write 1 close 3 fstat 5 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12
            rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 pread64 17 sched_yield 24 mremap 25
            madvise 28 nanosleep 35 getpid 39 sendto 44 recvfrom 45 clone 56 exit 60 kill 62
            fcntl 72 gettimeofday 96 getrusage 98 times 100 sigaltstack 131 gettid 186 time 201
            futex 202 sched_getaffinity 204 restart_syscall 219 clock_gettime 228 clock_getres 229
            clock_nanosleep 230 exit_group 231 tgkill 234 openat 257 newfstatat 262 ppoll 271
            set_robust_list 273 prlimit64 302 getrandom 318 rseq 334 clone3 435"""
        ),
    ),
    "aarch64": Machine(
        0xC000_00B7,
        277,
        _numbers(
            """fcntl 25 openat 56 close 57 lseek 62 read 63 write 64 pread64 67 ppoll 73
            newfstatat 79 fstat 80 exit 93 exit_group 94 futex 98 set_robust_list 99 nanosleep 101
            clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getaffinity 123
            sched_yield 124 restart_syscall 128 kill 129 tgkill 131 sigaltstack 132
            rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139 times 153 getrusage 165
            gettimeofday 169 getpid 172 gettid 178 sendto 206 recvfrom 207 brk 214 munmap 215
            mremap 216 clone 220 mmap 222 mprotect 226 madvise 233 prlimit64 261 getrandom 278
            rseq 293 clone3 435"""
        ),
    ),
}

# What changes nothing outside of this process, whatever it is asked with.
_HARMLESS = (
    *("pread64", "sendto", "recvfrom", "futex", "madvise", "munmap", "read", "write", "close"),
    *("fstat", "lseek", "brk", "mremap", "sched_yield", "rt_sigprocmask", "rt_sigaction"),
    *("rt_sigreturn", "sigaltstack", "clock_gettime", "clock_getres", "clock_nanosleep"),
    *("nanosleep", "gettimeofday", "time", "times", "getrusage", "getpid", "gettid"),
    *("sched_getaffinity", "set_robust_list", "rseq", "restart_syscall", "getrandom", "poll"),
    *("ppoll", "exit", "exit_group"),
)


@dataclass(frozen=True, slots=True)
class Only:
    """A condition: of a call's argument, these bits have this value. is_high: of its upper half."""

    argument: int
    bits: int
    value: int
    is_high: bool = False


def filter_calls(*, may_thread: bool, may_open: bool) -> bool:
    """Let this process make no other calls from here on, for ever.

    no_new_privs must be set. False where the kernel has no such thing, or does not let us.
    """
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    return install(_program(machine, may_thread=may_thread, may_open=may_open), machine)


class _Header(ctypes.Structure):  # struct sock_fprog
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(program: bytes, machine: Machine) -> bool:
    """Hand a program to the kernel; whether it took it."""
    header = _Header(len(program) // _INSTRUCTION.size, program)
    call = ctypes.CDLL(None).syscall
    taken: int = call(machine.seccomp, _SET_FILTER, _OF_ALL_THREADS, ctypes.byref(header))
    return taken == 0


def _program(machine: Machine, *, may_thread: bool, may_open: bool) -> bytes:
    return b"".join(
        (
            instruction(_LOAD, _ARCHITECTURE),
            instruction(_IF_EQUAL, machine.audit_arch, 1, 0),
            instruction(_RETURN, _KILL),
            instruction(_LOAD, _NUMBER),
            instruction(_IF_NOT_BELOW, _X32, 0, 1),
            instruction(_RETURN, _KILL),
            *(allowed(machine.numbers[name]) for name in _HARMLESS if name in machine.numbers),
            *(
                allowed(machine.numbers[name], conditions)
                for name, conditions in _conditional(may_thread=may_thread, may_open=may_open)
            ),
            refused(machine.numbers["clone3"], errno.ENOSYS),  # so that libc takes clone
            instruction(_RETURN, _REFUSE | errno.EPERM),
        )
    )


def _conditional(*, may_thread: bool, may_open: bool) -> Iterator[tuple[str, Sequence[Only]]]:
    no_code, itself = Only(2, mmap.PROT_EXEC, 0), Only(0, 0xFFFF_FFFF, os.getpid())
    nowhere = (Only(2, 0xFFFF_FFFF, 0), Only(2, 0xFFFF_FFFF, 0, is_high=True))
    yield "mmap", [no_code]
    yield "mprotect", [no_code]
    yield "newfstatat", [Only(3, _EMPTY_PATH, _EMPTY_PATH)]
    for signalling in ("kill", "tgkill"):
        yield signalling, [itself]
    for command in (fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_GETFL):
        yield "fcntl", [Only(1, 0xFFFF_FFFF, command)]
    yield "prlimit64", [Only(0, 0xFFFF_FFFF, 0), *nowhere]  # to read its own
    if may_thread:
        yield "clone", [Only(0, 0xFFFF_FFFF & ~_DETACHED, _THREAD)]
    if may_open:
        yield "openat", [Only(2, _MAY_CHANGE, os.O_RDONLY)]
        yield "fcntl", [Only(1, 0xFFFF_FFFF, fcntl.F_SETFD)]


def allowed(number: int, conditions: Sequence[Only] = ()) -> bytes:
    """Let this call pass where all conditions hold, else go on with its number."""
    tests = []
    for left, condition in zip(range(len(conditions) - 1, -1, -1), conditions, strict=True):
        where = _ARGUMENTS + 8 * condition.argument + 4 * condition.is_high
        tests += [
            instruction(_LOAD, where),
            instruction(_AND, condition.bits),
            instruction(_IF_EQUAL, condition.value, 0, 3 * left + 1),
        ]
    block = [*tests, instruction(_RETURN, _ALLOW)]
    if conditions:
        block.append(instruction(_LOAD, _NUMBER))
    return b"".join([instruction(_IF_EQUAL, number, 0, len(block)), *block])


def refused(number: int, error: int) -> bytes:
    """Let this call fail with an error."""
    return instruction(_IF_EQUAL, number, 0, 1) + instruction(_RETURN, _REFUSE | error)


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One of the kernel's classic BPF machine. if_true, if_false: how many to skip."""
    return _INSTRUCTION.pack(code, if_true, if_false, value)
