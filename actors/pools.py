"""The actors that all stream hosts share."""

from dataclasses import dataclass

import ray

from actors.calls import Handle
from actors.profile import Profile

NAMESPACE = "vidray"  # of every name here: without one a name is known to one driver alone


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

    @classmethod
    def of(cls, fleet: str, profile: Profile) -> "PoolNames":
        """Those of the fleet of this name."""

        def pool(role: str, size: int) -> tuple[str, ...]:
            return tuple(f"{fleet}/{role}-{number}" for number in range(size))

        return cls(
            readers=pool("reader", profile.readers.num_actors),
            encoders=pool("encoder", profile.encoders.num_actors),
            decoders=pool("decoder", profile.decoders.num_replicas),
        )

    def turned(self, number: int, count: int) -> "PoolNames":
        """For one of so many hosts: of equals each begins with others."""

        def turn(names: tuple[str, ...]) -> tuple[str, ...]:
            first = len(names) * number // count
            return names[first:] + names[:first]

        return PoolNames(
            readers=turn(self.readers),
            encoders=turn(self.encoders),
            decoders=turn(self.decoders),
        )

    def find(self) -> Pools:
        return Pools(
            readers=tuple(map(_found, self.readers)),
            encoders=tuple(map(_found, self.encoders)),
            decoders=tuple(map(_found, self.decoders)),
        )


def _found(name: str) -> Handle:
    handle: Handle = ray.get_actor(name, namespace=NAMESPACE)
    return handle
