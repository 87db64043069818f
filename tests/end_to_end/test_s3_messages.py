"""What goes wrong with S3 is told by bucket, key, endpoint, operation and whose keys were used."""

import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import cli
from jobs.lab.bench.s3_server import BUCKET, KEYS, READER_KEYS, S3Server
from pipeline.store.open import open_store
from tests.batch_runs import upload
from tests.fault_proxy import FaultProxy
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`vidray batch run SRC OUT` with these variables, and none of this machine's: its exit code
    and the lines that it says."""
    model = write_folder(tmp_path / "model")

    def invoke(source: str, out: str, endpoint: str, **variables: str) -> tuple[int, list[str]]:
        for name in (*KEYS, "AWS_MAX_ATTEMPTS", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        own = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
        for name, value in (own | {"AWS_ENDPOINT_URL": endpoint} | variables).items():
            monkeypatch.setenv(name, value)
        command = ["batch", "run", source, out, "--model", str(model), "--in-process"]
        monkeypatch.setattr("sys.argv", ["vidray", *command, "--max-new-tokens", "2"])
        code = int(cli._run())
        return code, capsys.readouterr().err.splitlines()

    return invoke


@pytest.fixture
def place(s3_server: S3Server, tmp_path: Path) -> str:
    """A prefix of its own with a clip in it."""
    place = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    clips = tmp_path / "clips"
    clips.mkdir()
    make(clips, Clip(num_frames=8), "clip")
    upload(clips, open_store(f"{place}/clips", s3_server.config()))
    return place


def test_each_fault_is_told_apart_before_anything_starts(
    run: Run, place: str, s3_server: S3Server
) -> None:
    at = f"at {s3_server.endpoint} (us-east-1) with the keys of AWS_ACCESS_KEY_ID: "
    none = f"at {s3_server.endpoint} (us-east-1) with no keys (there is no AWS_ACCESS_KEY_ID, "
    wrong = KEYS | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    source, out = f"{place}/clips", f"{place}/rows"
    for asked, keys, words in [
        (("s3://no-such/clips", out), KEYS, ["source: s3://no-such/clips/ ", at, "NoSuchBucket"]),
        ((source, "s3://no-such/rows"), KEYS, ["output: s3://no-such/rows/", at, "NoSuchBucket"]),
        (
            (source, out),
            {},
            [f"output: {out}/plan.json ", none, "GetObject: reading is not"],
        ),
        ((source, out), READER_KEYS, [f"output: {out}/plan/", at, "PutObject", "AccessDenied"]),
        ((source, out), wrong, [f"output: {out}/plan.json ", at, "GetObject", "Signature"]),
    ]:
        code, said = run(*asked, s3_server.endpoint, **keys)
        assert (code, len(said)) == (2, 1), said
        assert all(word in said[0] for word in words), said
    assert list(open_store(out, s3_server.config()).scan()) == []


def test_a_local_source_and_a_refused_output_are_told_apart_too(
    run: Run, place: str, s3_server: S3Server, tmp_path: Path
) -> None:
    code, said = run(str(tmp_path / "clips"), f"{place}/rows", s3_server.endpoint, **READER_KEYS)
    assert code == 2
    assert said[-1].startswith(f"vidray: output: {place}/rows/plan/")
    code, said = run(f"{place}/clips", str(tmp_path / "rows"), s3_server.endpoint)
    assert code == 2
    assert said[-1].startswith(f"vidray: source: {place}/clips")
    assert said[-1].endswith(": HeadObject: reading is not permitted")


def test_an_endpoint_that_does_not_answer_is_told_from_the_second_try_on(
    run: Run, tmp_path: Path
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        keys = KEYS | {"AWS_MAX_ATTEMPTS": "4"}
        code, said = run(str(tmp_path), "s3://videos/rows", endpoint, **keys)
    assert code == 1
    *again, last = said
    assert [line.rpartition("; ")[2] for line in again] == [
        f"asking again, {number} of 4" for number in (2, 3, 4)
    ]
    for line in said:
        assert "s3://videos/rows/plan.json at " in line
        assert endpoint in line
        assert "with the keys of AWS_ACCESS_KEY_ID: GetObject: no whole answer" in line
    assert last.startswith("vidray: s3://videos/rows/plan.json")


def test_a_store_that_is_busy_for_a_while_is_told_and_the_job_goes_on(
    run: Run, place: str, s3_server: S3Server
) -> None:
    proxy = FaultProxy(s3_server.port)
    try:
        proxy.inject("refuse", method="GET", times=2, key="clip.mp4")
        code, said = run(f"{place}/clips", f"{place}/rows", proxy.endpoint, **KEYS)
    finally:
        proxy.close()
    assert code == 0, said
    assert said[0] == f"S3 at {proxy.endpoint} (us-east-1) with the keys of AWS_ACCESS_KEY_ID"
    again = [line for line in said if "asking again" in line]
    assert [line.rpartition("; ")[2] for line in again] == [
        "asking again, 2 of 16",
        "asking again, 3 of 16",
    ]
    assert all(f"{place}/clips/clip.mp4 at " in line and "503 SlowDown" in line for line in again)
