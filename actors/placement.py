"""Where actors go: which share a GPU, which come first, and whether a cluster has room for all.

Pure: from a profile to bundles, and from bundles and nodes to yes or what is missing. A bundle is
what lies on one node for certain. Left to themselves, fractions of a GPU are packed: the encoders
of eight cards would share the first one, and no decoder would find a whole card any more. So every
rank has its encoder in its bundle, and replicas take their room before anybody else does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from actors.profile import Profile
from pipeline.errors import ConfigError

_DIGITS = 4  # Ray counts in ten-thousandths

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What lies together on one node: the rank of a decoder, and the numbers of its encoders."""

    cpus: float
    gpus: float
    encoders: tuple[int, ...] = ()

    @property
    def resources(self) -> dict[str, float]:
        """As Ray calls them."""
        return {name: each for name, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each}

    def __str__(self) -> str:
        parts = [f"{each:g} {name}" for name, each in self.resources.items()]
        return " and ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Placement:
    """All bundles of a profile, those that are placed first coming first.

    replicas: of each, one bundle a rank. encoders: of those that share no rank's GPU, by number.
    """

    profile: str
    replicas: tuple[tuple[Bundle, ...], ...]
    encoders: dict[int, Bundle]
    readers: tuple[Bundle, ...]

    @classmethod
    def of(cls, profile: Profile) -> "Placement":
        """ConfigError for parts of GPUs that no card can be cut into."""
        ranks, tower = profile.decoders, profile.encoders
        _require_cuttable("decoders", ranks.num_gpus)
        _require_cuttable("encoders", tower.num_gpus)
        num_ranks = ranks.num_replicas * ranks.tensor_parallel
        # Of a card that a rank has in part, the encoders take what is left.
        is_shared = 0 < ranks.num_gpus < 1 and tower.num_gpus > 0
        share = int((1 - ranks.num_gpus + 1e-9) / tower.num_gpus) if is_shared else 0
        num_joined = min(tower.num_actors, share * num_ranks)
        bundles = [
            Bundle(
                cpus=_sum(ranks.num_cpus, tower.num_cpus * len(joined)),
                gpus=_sum(ranks.num_gpus, tower.num_gpus * len(joined)),
                encoders=joined,
            )
            for joined in (tuple(range(rank, num_joined, num_ranks)) for rank in range(num_ranks))
        ]
        size = ranks.tensor_parallel
        return cls(
            profile=profile.name,
            replicas=tuple(
                tuple(bundles[first : first + size]) for first in range(0, num_ranks, size)
            ),
            encoders={
                number: Bundle(tower.num_cpus, tower.num_gpus, (number,))
                for number in range(num_joined, tower.num_actors)
            },
            readers=(Bundle(profile.readers.num_cpus, 0.0),) * profile.readers.num_actors,
        )

    def require_room(self, nodes: Sequence[Resources]) -> None:
        """ConfigError, naming what is missing, unless these nodes, empty, hold everything."""
        rooms = [_Room.of(node) for node in nodes]
        for what, bundles in self._in_order():
            fits = [_take(bundle, rooms) for bundle in bundles]
            if not all(fits):
                wanted = f"{len(bundles)} times {bundles[0]}" if len(bundles) > 1 else bundles[0]
                raise ConfigError(
                    f"profile {self.profile}: no room for {what}: it wants {wanted}, of which "
                    f"{sum(fits)} fit beside what comes first; there are {_described(nodes)}"
                )

    def _in_order(self) -> Iterator[tuple[str, tuple[Bundle, ...]]]:
        for number, replica in enumerate(self.replicas):
            yield f"decoder {number}", replica
        if self.encoders:
            yield "the encoders", tuple(self.encoders.values())
        yield "the readers", self.readers


@dataclass(slots=True)
class _Room:
    """What is left of a node. gpus: of each card, the part that is free."""

    cpus: float
    gpus: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, node: Resources) -> "_Room":
        return cls(cpus=node.get("CPU", 0.0), gpus=[1.0] * int(node.get("GPU", 0.0)))

    def take(self, bundle: Bundle) -> bool:
        """Whether it fits; then it has it."""
        if bundle.cpus > self.cpus:
            return False
        num_whole, part = divmod(bundle.gpus, 1)
        gpus = list(self.gpus)
        for needed in (*[1.0] * int(num_whole), *[part] * (part > 0)):
            fitting = [free for free in gpus if free >= needed]
            if not fitting:
                return False
            gpus.remove(min(fitting))  # the fullest card that has it
            gpus.append(_sum(min(fitting), -needed))
        self.cpus, self.gpus = _sum(self.cpus, -bundle.cpus), gpus
        return True


def _take(bundle: Bundle, rooms: Sequence[_Room]) -> bool:
    """On the fullest node where it fits; those without cards first for what needs none."""
    order = sorted(rooms, key=lambda room: (sum(room.gpus), room.cpus))
    return any(room.take(bundle) for room in order)


def _require_cuttable(pool: str, gpus: float) -> None:
    if gpus > 1 and gpus % 1:
        raise ConfigError(f"{pool}.num_gpus must be whole or a part of one, got {gpus:g}")


def _described(nodes: Sequence[Resources]) -> str:
    if not nodes:
        return "no nodes"
    each = sorted(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes)
    counts = {text: each.count(text) for text in dict.fromkeys(each)}
    return ", ".join(
        f"{count} nodes of {text}" if count > 1 else f"a node of {text}"
        for text, count in counts.items()
    )


def _sum(one: float, other: float) -> float:
    return round(one + other, _DIGITS)
