"""What every test gets: one thread, its own random state, and the tiny reference checkpoints."""

from collections.abc import Iterator

import pytest
import torch

from jobs.lab.bench.s3_server import S3Server
from pipeline.families.qwen2_vl.model import Qwen2VL
from tests.tiny_model import VARIANTS, Reference, Tiny, describe

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session", params=VARIANTS, ids=describe)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """Every tiny checkpoint in turn, with transformers' model and ours of it."""
    return Reference.create(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(params=["torch's kernels", "oneDNN's"])
def exact_model(reference: Reference, request: pytest.FixtureRequest) -> Qwen2VL:
    """Our model of the reference, as it is and as it runs on a CPU."""
    return reference.packed_model if request.param == "oneDNN's" else reference.model


@pytest.fixture(scope="session")
def default_reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One tiny checkpoint, where the variant does not matter."""
    return Reference.create(tmp_path_factory.mktemp("checkpoint"), Tiny(seed=5))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run; tests write under prefixes of their own."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    try:
        server.start()
        yield server
    finally:
        server.stop()
