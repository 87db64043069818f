"""The actors that all stream hosts share, and which of a kind has the least to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from actors.calls import Handle


class Pool:
    """Knows the load that this process has put on each of its actors."""

    def __init__(self, actors: Sequence[Handle]) -> None:
        self.actors = tuple(actors)
        self._loads = [0] * len(self.actors)

    @contextmanager
    def least_loaded(self, *, load: int) -> Iterator[Handle]:
        """The actor with the smallest load, which is `load` larger until the block ends."""
        chosen = min(range(len(self.actors)), key=self._loads.__getitem__)
        self._loads[chosen] += load
        try:
            yield self.actors[chosen]
        finally:
            self._loads[chosen] -= load


@dataclass(frozen=True, slots=True)
class Pools:
    """All of them, by kind."""

    readers: tuple[Handle, ...]
    encoders: tuple[Handle, ...]
    decoders: tuple[Handle, ...]


@dataclass(frozen=True, slots=True)
class PoolNames:
    """What those actors are called. To a stream host they travel as names: of an actor with handles
    in its constructor's arguments Ray fears, aloud, that it could not be restarted.
    """

    readers: tuple[str, ...]
    encoders: tuple[str, ...]
    decoders: tuple[str, ...]

    def find(self) -> Pools:
        return Pools(
            readers=tuple(map(ray.get_actor, self.readers)),
            encoders=tuple(map(ray.get_actor, self.encoders)),
            decoders=tuple(map(ray.get_actor, self.decoders)),
        )
