"""What every test gets: one thread, its own random state, and the tiny reference checkpoints."""

import gc
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import torch

from jobs import cli
from jobs.lab.bench.s3_server import S3Server
from pipeline.config import EngineLimits
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.local import LocalFlow, LocalModel
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.held_words import HeldWords
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.tiny_model import VARIANTS, Reference, Tiny, describe

torch.set_num_threads(1)

Vidray = Callable[..., tuple[int, str, str]]  # arguments; exit code, output, errors


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: looking through it for garbage took a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes go first: the last one to begin is waited for with a core idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():  # torch.manual_seed writes down its callers where there is none
        torch.cuda.manual_seed_all(0)
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
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to name and to read; who changes one writes a folder of its own."""
    return write_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """Sees `source` in several chunks, and has room for two streams of it."""
    folder = write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)
    return LocalModel.load(folder, limits=EngineLimits(max_tokens=8_192, question_tokens=1_024))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source.of(make(tmp_path_factory.mktemp("clips"), Clip(num_frames=36, **CHUNKED)))


@pytest.fixture
def flow(local_model: LocalModel) -> Iterator[LocalFlow]:
    """Nothing may be left open in it."""
    flow = LocalFlow(local_model, options=PlanOptions(fps=12.0))
    yield flow
    flow.close()
    assert (local_model.rank.streams, flow._held) == ((), set())


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> HeldWords:
    """Of all engines in this process, to be held."""
    return HeldWords(monkeypatch)


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A port on loopback where nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run; tests write under prefixes of their own."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def vidray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vidray:
    """The command line in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vidray", *map(str, arguments)])
        code = int(cli._run())
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Names that are not UTF-8 would end a worker of xdist, which sends home what was captured."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
