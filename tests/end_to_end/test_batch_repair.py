"""A finished job whose rows were damaged: the real commands name it, put it aside and mend it."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import cli
from jobs.lab.bench.s3_server import BUCKET, KEYS, S3Server
from pipeline.store.commit import SUCCESS_KEY, part_key
from pipeline.store.objects import get
from pipeline.store.open import open_store
from tests.batch_runs import assert_complete, words
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

Vidray = Callable[..., tuple[int, str]]


@pytest.fixture
def vidray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3_server: S3Server
) -> Vidray:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["vidray", *map(str, arguments)])
        code = int(cli._run())
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_truncated_part_is_named_put_aside_and_made_again(
    place: str, vidray: Vidray, tmp_path: Path, s3_server: S3Server
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(3):
        make(clips, Clip(num_frames=8), f"clip{number}")
    out = str(tmp_path / "out") if place == "folder" else f"s3://{BUCKET}/{uuid.uuid4().hex}"
    store = open_store(out, s3_server.config())
    job = ("batch", "run", clips, out, "--model", write_folder(tmp_path / "model"), "--in-process",
           "--videos-per-part", 1, "--max-new-tokens", 2)  # fmt: skip
    assert vidray(*job)[0] == 0
    before, marker = words(store), get(store, SUCCESS_KEY, max_bytes=1 << 20)
    whole = get(store, part_key(1), max_bytes=1 << 20)
    store.delete(part_key(1))
    store.put_new(part_key(1), whole[:1000])

    for command in (job, ("batch", "status", out), ("fsck", out)):
        code, said = vidray(*command)
        assert code == 1
        assert part_key(1) in said
        assert "--repair" in said
    page = tmp_path / "page.html"
    for command in (("show", out), ("tables", out), ("report", out, "--page", page)):
        code, said = vidray(*command)
        assert (code, part_key(1) in said) == (1, True)
        # the sound ones behind it are not hidden
        assert command[0] != "show" or all(f"clip{number}.mp4" in said for number in (0, 2))
    shown = page.read_text()
    assert all(name in shown for name in ("clip0.mp4", "clip2.mp4", part_key(1)))
    assert {info.key for info in store.scan("tables/captions/")} == {
        f"tables/captions/part-0000{number}.parquet" for number in (0, 2)
    }
    assert vidray("fsck", out, "--repair")[0] == 1
    (aside,) = (info.key for info in store.scan(f"damaged/{part_key(1)}"))
    assert get(store, aside, max_bytes=1 << 20) == whole[:1000]
    assert len(list(store.scan("parts/part-"))) == 2  # a plain glob is right all the time
    assert vidray(*job)[0] == 0
    assert_complete(store)
    assert words(store) == before
    assert get(store, SUCCESS_KEY, max_bytes=1 << 20) != marker
    for command in (("batch", "status", out), ("fsck", out)):
        assert vidray(*command)[0] == 0


def test_a_part_that_is_lost_is_no_finished_job(vidray: Vidray, tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for number in range(2):
        make(clips, Clip(num_frames=8), f"clip{number}")
    job = ("batch", "run", clips, out, "--model", write_folder(tmp_path / "model"), "--in-process",
           "--videos-per-part", 1, "--max-new-tokens", 2)  # fmt: skip
    assert vidray(*job)[0] == 0
    open_store(str(out)).delete(part_key(1))
    code, said = vidray("batch", "status", out)
    assert (code, vidray("fsck", out)[0]) == (1, 1)
    assert "1 of 2, the others are lost: vidray fsck" in said
    page = tmp_path / "page.html"
    for command in (("show", out), ("show", out, "clip1.mp4"), ("show", out, "--failed"),
                    ("tables", out), ("report", out, "--page", page)):  # fmt: skip
        code, said = vidray(*command)
        assert (code, "lost since it was finished: 1 of 2 parts; vidray fsck" in said) == (
            1,
            True,
        ), said
    assert "lost since it was finished: 1 of 2 parts." in page.read_text()
    vidray("fsck", out, "--repair")
    assert vidray(*job)[0] == 0
    assert [vidray(*command)[0] for command in (("batch", "status", out), ("fsck", out))] == [0, 0]
