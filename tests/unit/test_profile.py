"""A profile says how much of a machine to take, and is refused with the field's name."""

from pathlib import Path

import pytest

from actors.profile import Profile
from pipeline.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "deploy" / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_loads_under_its_own_name(path: Path) -> None:
    assert Profile.load(path).name == path.stem


def test_the_laptop_profile_is_the_default() -> None:
    laptop = next(path for path in SHIPPED if path.stem == "laptop")
    assert Profile.load(laptop) == Profile()


def test_the_laptop_default_asks_for_no_more_than_two_cores_and_no_gpu() -> None:
    profile = Profile()
    pools = (
        (profile.readers.num_actors, profile.readers.num_cpus, 0.0),
        (profile.encoders.num_actors, profile.encoders.num_cpus, profile.encoders.num_gpus),
        (
            profile.decoders.num_replicas * profile.decoders.tensor_parallel,
            profile.decoders.num_cpus,
            profile.decoders.num_gpus,
        ),
    )
    assert sum(count * cpus for count, cpus, _ in pools) <= 2
    assert sum(gpus for _, _, gpus in pools) == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("decoders: {tensor_parallel: 0}", "decoders.tensor_parallel"),
        ("dtype: float8", "dtype"),
        ("readerz: {}", "readerz"),
        ("videos_in_flight: 100", "object_store_bytes"),
        ("[", "not YAML"),
    ],
)
def test_a_bad_profile_is_refused_by_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        Profile.load(path)


def test_a_missing_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such profile"):
        Profile.load(tmp_path / "none.yaml")
