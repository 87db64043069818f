"""Where actors go is known before one starts; what has no room is named at once."""

from pathlib import Path

import pytest

from actors.placement import Bundle, Placement
from actors.pools import PoolNames
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from deploy.profiles import bundled
from jobs.workplace import machine_profile
from pipeline.errors import ConfigError

MACHINE = {"CPU": 64.0, "GPU": 8.0}
PROFILES = {name: Profile.load(path) for name, path in bundled().items()}


def make(
    *, gpus: float, ranks: int = 1, replicas: int = 1, encoders: int = 1, part: float = 0.0
) -> Profile:
    return Profile(
        readers=ReaderPool(num_cpus=1),
        encoders=EncoderPool(num_actors=encoders, num_cpus=1, num_gpus=part),
        decoders=DecoderPool(
            num_replicas=replicas, tensor_parallel=ranks, num_cpus=1, num_gpus=gpus
        ),
    )


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_shipped_profile_fits_eight_cards_each_with_its_rank_and_its_encoder(
    profile: Profile,
) -> None:
    placement = Placement.of(profile)
    placement.require_room([MACHINE])
    placed = [number for replica in placement.replicas for b in replica for number in b.encoders]
    if profile.device == "cuda":
        assert sorted(placed) == list(range(profile.encoders.num_actors))
        assert all(bundle.gpus <= 1 for replica in placement.replicas for bundle in replica)


def test_encoders_are_shared_out_over_the_cards_of_all_replicas() -> None:
    placement = Placement.of(make(gpus=0.8, ranks=2, replicas=2, encoders=6, part=0.1))
    bundles = [bundle for replica in placement.replicas for bundle in replica]
    assert [bundle.encoders for bundle in bundles] == [(0, 4), (1, 5), (2,), (3,)]
    assert bundles[0] == Bundle(cpus=3.0, gpus=1.0, encoders=(0, 4))


def test_encoders_that_no_card_has_room_for_are_placed_after_all_ranks() -> None:
    placement = Placement.of(make(gpus=0.8, encoders=3, part=0.2))
    assert placement.replicas[0][0].encoders == (0,)
    assert list(placement.encoders) == [1, 2]
    whole = Placement.of(make(gpus=1, encoders=2, part=0.5))
    assert list(whole.encoders) == [0, 1]
    whole.require_room([{"CPU": 4.0, "GPU": 2.0}])


@pytest.mark.parametrize(
    ("profile", "nodes", "words"),
    [
        (make(gpus=1), [{"CPU": 8.0}], "decoder 0: it wants 1 CPU and 1 GPU, of which 0 fit"),
        (make(gpus=1, ranks=4), [{"CPU": 9.0, "GPU": 3.0}], "4 times 1 CPU and 1 GPU, of which 3"),
        (make(gpus=1, replicas=3), [{"CPU": 9.0, "GPU": 2.0}], "no room for decoder 2"),
        (make(gpus=0.9, encoders=2, part=0.1), [{"CPU": 3.0, "GPU": 1.0}], "the encoders"),
        (make(gpus=1), [{"CPU": 2.0, "GPU": 1.0}], "the readers: it wants 1 CPU"),
        (make(gpus=0), [], "there are no nodes"),
        (
            make(gpus=0.6, replicas=2),
            [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 0.5, "GPU": 1.0}],
            "decoder 1",
        ),
    ],
)
def test_what_is_missing_is_named(
    profile: Profile, nodes: list[dict[str, float]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Placement.of(profile).require_room(nodes)


def test_replicas_come_first_and_what_needs_no_card_leaves_cards_alone() -> None:
    profile = make(gpus=1, ranks=2, replicas=2, encoders=4)
    Placement.of(profile).require_room([{"CPU": 9.0}, {"CPU": 2.0, "GPU": 2.0}] * 2)


@pytest.mark.parametrize("gpus", [1.5, 2.1])
def test_parts_of_several_cards_are_refused(gpus: float) -> None:
    with pytest.raises(ConfigError, match="whole or a part of one"):
        Placement.of(make(gpus=gpus))


def test_the_machines_own_profile_fits_the_ray_that_it_starts(tmp_path: Path) -> None:
    profile = machine_profile()
    Placement.of(profile).require_room([{"CPU": profile.num_cpus + 1, "GPU": 1.0}])


def test_each_stream_host_begins_with_other_members_of_the_pools() -> None:
    names = PoolNames(readers=("r0", "r1", "r2", "r3"), encoders=("e0",), decoders=("d0", "d1"))
    turned = [names.turned(number, 2) for number in range(2)]
    assert turned[0] == names
    assert (turned[1].readers, turned[1].decoders) == (("r2", "r3", "r0", "r1"), ("d1", "d0"))
