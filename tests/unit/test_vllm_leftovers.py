"""Shared memory of processes that were killed does not stay."""

import multiprocessing
import os
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from actors.vllm.leftovers import remove, shared_files


def test_what_multiprocessing_shares_is_found_and_removed_while_it_is_mapped() -> None:
    before = shared_files(os.getpid())
    memory = SharedMemory(create=True, size=64)
    try:
        found = shared_files(os.getpid()) - before
        assert found == {Path("/dev/shm") / memory.name}
        assert all(file.exists() for file in found)
        remove([*found, *found])
        assert not any(file.exists() for file in found)
        memory.buf[0] = 1
    finally:
        memory.close()
        multiprocessing.resource_tracker.unregister(memory._name, "shared_memory")


def test_a_process_that_is_gone_has_mapped_nothing() -> None:
    assert shared_files(2**22 + 1) == frozenset()
