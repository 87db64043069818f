"""Shipped profiles start on the cards they were made for. Ray only believes in them.

One of each way to be placed: tests/unit/test_placement.py has all of them, without processes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import launch
from actors.launch import start_fleet
from actors.profile import Profile
from actors.ray_private import bare_node
from deploy.profiles import bundled
from pipeline.errors import ConfigError
from tests.dummies import Dummy, DummyLeader
from tests.tiny_folder import write_folder

pytestmark = pytest.mark.timeout(300)

NUM_GPUS = 8
NAMES = ("laptop", "gpu1-7b", "gpu1-7b-vllm", "gpu8-72b", "gpu8-72b-twice-vllm")
PROFILES = {name: Profile.load(bundled()[name]) for name in NAMES}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with bare_node():
        ray.init(
            num_cpus=64,
            num_gpus=NUM_GPUS,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            _system_config={"prestart_worker_first_driver": False},  # one for each of those CPUs
        )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "DECODERS", dict.fromkeys(launch.DECODERS, DummyLeader))
    monkeypatch.setattr(launch, "require_vllm", lambda: "")  # nor is there a model in any of them
    for name in ("FrameReaderActor", "VisionEncoderActor", "StreamHostActor"):
        monkeypatch.setattr(launch, name, Dummy)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_rank_has_a_card_and_shares_it_with_its_encoder(
    profile: Profile, checkpoint: Path
) -> None:
    few = profile.readers.model_copy(update={"num_actors": 2})  # processes of their own
    with start_fleet(checkpoint, profile=profile.model_copy(update={"readers": few})) as fleet:
        gpus: Any = [ray.get(each.gpus.remote()) for each in fleet.pools.decoders]
        encoders: Any = ray.get([each.gpus.remote() for each in fleet.pools.encoders])
        ray.get([each.process_id.remote() for each in fleet.pools.readers])
    ranks = [gpu for replica in gpus for gpu in replica]
    if profile.device == "cuda":
        assert (
            len(set(ranks))
            == len(ranks)
            == (profile.decoders.num_replicas * profile.decoders.tensor_parallel)
        )
        assert sorted(gpu for (gpu,) in encoders) == sorted(ranks)[: len(encoders)]


def test_what_fits_nowhere_is_an_error_at_once_that_names_it(checkpoint: Path) -> None:
    large = PROFILES["gpu8-72b"].decoders.model_copy(update={"num_replicas": 2})
    profile = PROFILES["gpu8-72b"].model_copy(update={"decoders": large})
    with (
        pytest.raises(ConfigError, match="no room for decoder 1"),
        start_fleet(checkpoint, profile=profile),
    ):
        pass
