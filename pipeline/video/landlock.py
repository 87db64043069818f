"""Landlock: a process gives up the right to open files, to use TCP and to signal others.

A second fence behind seccomp, and the one that tells files apart. Kernels know more of it from
version to version; each is asked for all that it knows.
Not covered: what is open already; the existence, size and dates of files.
"""

import ctypes
import os
from struct import Struct, pack

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every machine
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE = 1 << 2
# All rights to files by version: 2 knows links across folders, 3 truncation, 5 devices' ioctl.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_SINCE, _SCOPES_SINCE = 4, 6
_RULE = Struct("=Qi")


def give_up_files(*, but: int | None) -> bool:
    """Open no file any more, however it is named, for ever; `but`: a descriptor whose file may be.

    no_new_privs must be set. False where the kernel has no Landlock, or does not let us.
    """
    call = ctypes.CDLL(None).syscall
    version: int = call(_CREATE, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    tcp = 3 if version >= _TCP_SINCE else 0  # bind and connect
    scopes = 3 if version >= _SCOPES_SINCE else 0  # abstract sockets and signals
    attributes = pack("=QQQ", rights, tcp, scopes)
    # A kernel refuses more bytes than it knows unless they are zero, which those are.
    rules: int = call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        if but is not None:
            rule = _RULE.pack(_READ_FILE, but)
            if call(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0:
                return False
        done: int = call(_RESTRICT, rules, 0)
        return done == 0
    finally:
        os.close(rules)
