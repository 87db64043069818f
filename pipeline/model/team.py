"""Threads that compute a word together, and look out for each other before they sleep.

torch's own sleep and wake between a word's products, which takes longer than a product of bytes.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.model import word_kernels as kernels
from pipeline.model.machine_code import compile_for

Array = np.ndarray[Any, np.dtype[Any]]
_libc = ctypes.CDLL(None, use_errno=True)


class Team:
    """Whoever calls `lead`, and threads of its own, which start with the first job that has work
    for them and end with the team.

    turn: to be held while a job is filled in and led.
    """

    def __init__(self, most: int, job: Array, *memory: Array) -> None:
        """most: threads there can be; job, memory: what `kernels.work` takes, kept by the team.

        OSError where the system has no semaphores left.
        """
        self.turn = threading.Lock()
        self._most, self._process = most, os.getpid()
        self._job, self._memory = job, memory
        self._arrivals = np.zeros(1, np.int64)
        self._wakers = np.zeros(kernels.WAKER_BYTES * most, np.uint8)
        job["arrivals"], job["wakers"] = self._arrivals.ctypes.data, self._wakers.ctypes.data
        for index in range(most):
            if _libc.sem_init(ctypes.c_void_p(_waker(job, index)), 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "no semaphore")
        compile_for(kernels.work, job, *memory, 0)
        self._followers: list[threading.Thread] = []
        self._end = weakref.finalize(self, _dismiss, self.turn, job, self._followers)

    def lead(self) -> None:
        """Do the job as it is filled in, by as many threads as torch may use here."""
        num_threads = min(torch.get_num_threads(), self._most)
        if not self._end.alive or self._process != os.getpid():  # the others are gone, or forked
            num_threads = 1
        while len(self._followers) < num_threads - 1:
            if not self._start_follower():
                num_threads = len(self._followers) + 1
        self._job["num_threads"], self._job["met"] = num_threads, self._arrivals[0]
        kernels.work(self._job, *self._memory, 0)

    def _start_follower(self) -> bool:
        """False if there can be no more threads."""
        kept = (self._arrivals, self._wakers)  # for as long as it looks at them
        follower = threading.Thread(
            target=_follow,
            args=(kept, self._job, self._memory, len(self._followers) + 1),
            daemon=True,
            name="word",
        )
        self._followers.append(follower)
        try:
            follower.start()
        except RuntimeError:
            self._followers.pop()
            return False
        return True


def _follow(kept: Sequence[Array], job: Array, memory: Sequence[Array], index: int) -> None:
    kernels.work(job, *memory, index)


def _waker(job: Array, index: int) -> int:
    return int(job["wakers"][0]) + kernels.WAKER_BYTES * index


def _dismiss(turn: threading.Lock, job: Array, followers: Sequence[threading.Thread]) -> None:
    """End them between two jobs, before Python itself ends: they could not come back into it."""
    with turn:
        job["num_threads"] = 0
        for index in range(1, len(followers) + 1):
            _libc.sem_post(ctypes.c_void_p(_waker(job, index)))
    for follower in followers:
        if follower is not threading.current_thread():  # anybody may be collecting garbage,
            follower.join(timeout=1)  # and hold what a thread's end waits for
