"""What can befall a fleet: a process is killed or stopped, the object store is full."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

import numpy as np
import psutil
import ray
from ray.exceptions import RayError

from actors.calls import until_ready
from actors.fleet import Fleet
from jobs.lab.soak.trial import decoding_children
from jobs.plan.processes import processes_of
from pipeline.config import MIB

STUFFED_S = 3.0  # how long the object store stays full
BLOCK_BYTES = 8 * MIB
PATIENCE_S = 120.0
GONE = (RayError, ProcessLookupError, psutil.NoSuchProcess)


class Nemesis:
    """Does every kind of harm in turn, in an order of its own, to a process chosen at random."""

    def __init__(self, fleet: Fleet, chance: random.Random, *, object_store_bytes: int) -> None:
        self._fleet = fleet
        self._chance = chance
        self._object_store_bytes = object_store_bytes
        self._deck: list[Callable[[], Awaitable[str]]] = []

    async def strike(self) -> str:
        """Do the next harm; says what it was."""
        if not self._deck:
            self._deck = [
                *(self._kill("reader"), self._kill("encoder"), self._kill("host")),
                *(self._kill("rank 0"), self._kill("rank 1")),
                *(self._stop, self._kill_decoding_child, self._stuff_object_store),
            ]
            self._chance.shuffle(self._deck)
        harm = self._deck.pop()
        while True:
            try:
                return await harm()
            except GONE:  # its victim was on its way out already
                await self.until_recovered()

    async def until_recovered(self) -> None:
        """Return when every actor answers; the next harm is not to be the last one's."""
        pools = self._fleet.pools
        actors = (*pools.readers, *pools.encoders, *pools.decoders, *self._fleet.hosts)
        await asyncio.gather(*(until_ready(actor, patience_s=PATIENCE_S) for actor in actors))

    def _kill(self, kind: str) -> Callable[[], Awaitable[str]]:
        async def kill() -> str:
            name, process_id = await self._someone(kind)
            os.kill(process_id, signal.SIGKILL)
            return f"{name} killed"

        return kill

    async def _stop(self) -> str:
        name, process_id = await self._someone("")
        os.kill(process_id, signal.SIGSTOP)
        return f"{name} stopped"

    async def _kill_decoding_child(self) -> str:
        """As soon as there is one."""
        _, reader = await self._someone("reader")
        while not (children := decoding_children(reader)):
            await asyncio.sleep(0.005)
        self._chance.choice(children).kill()
        return "decoding child killed"

    async def _stuff_object_store(self) -> str:
        block = np.zeros(BLOCK_BYTES, np.uint8)
        blocks = [ray.put(block) for _ in range(self._object_store_bytes // BLOCK_BYTES)]
        await asyncio.sleep(STUFFED_S)
        del blocks
        return "object store stuffed"

    async def _someone(self, kind: str) -> tuple[str, int]:
        found = await processes_of(self._fleet)
        return self._chance.choice([item for item in found.items() if kind in item[0]])
