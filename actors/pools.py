"""The actors that all stream hosts share."""

from dataclasses import dataclass

import ray

from actors.calls import Handle


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
