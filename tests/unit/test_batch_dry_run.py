"""What a job would take is told before it takes it, and nothing is written."""

from pathlib import Path

import pytest

from actors.profile import Profile
from jobs.batch.dry_run import MAX_SAMPLED, dry_run, forecast_of
from jobs.batch.job import Job
from jobs.batch.prepare import Prepared
from jobs.plan.scan import sampled
from pipeline.errors import ConfigError
from tests.batch_driver import make_items
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(3):
        make(clips, Clip(num_frames=24, fps=12), f"clip{number}")
    (clips / "bad.mp4").write_text("this is no video")
    (clips / "old.rm").write_text("RealMedia")
    (clips / "notes.txt").write_text("not to be missed unseen")
    return Job(
        source=str(clips),
        out=str(tmp_path / "out"),
        model=write_folder(tmp_path / "model"),
        videos_per_part=3,
    )


def test_the_forecast_is_what_the_headers_say(job: Job) -> None:
    scan = forecast_of(Prepared.of(job))
    assert (scan.num_videos, scan.num_sampled) == (4, 4)
    assert sum(scan.codes.values()) == 1
    assert scan.load.seconds == pytest.approx(3 * 2.0)
    assert scan.load.frames == 3 * 4  # two a second
    assert scan.load.tokens == 3 * 2 * 2  # two temporal patches of 28 x 56 pixels each


def test_a_dry_run_says_so_in_lines_and_writes_nothing(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(Prepared.of(job), Profile()) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["videos"] == "4"
    assert lines["parts"] == "2 of 3 videos"
    assert "some cannot be planned: 1 not_a_video" in lines["headers"]
    assert "to watch" in lines["time"]
    assert lines["others"] == "2 files passed over: .rm 1, .txt 1"
    assert not Path(job.out).exists()


def test_on_a_gpu_elsewhere_no_time_is_made_up(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(Prepared.of(job), Profile(device="cuda", dtype="bfloat16"))
    assert "time     not known from here" in capsys.readouterr().out


def test_an_archive_without_videos_is_told(job: Job) -> None:
    empty = job.model_copy(update={"suffix": (".webm",)})
    with pytest.raises(ConfigError, match=r"no videos in .*; 6 files passed over: \.mp4 4"):
        dry_run(Prepared.of(empty), Profile())


def test_the_sample_is_fair_and_bounded_however_long_the_listing() -> None:
    count, sample = sampled(make_items(20_000), size=MAX_SAMPLED)
    numbers = [int(item.uri[-11:-4]) for item in sample]
    assert count == 20_000
    assert len(set(numbers)) == MAX_SAMPLED
    assert 6_000 < sum(numbers) / len(numbers) < 14_000
    assert sampled(make_items(3), size=MAX_SAMPLED)[1] == list(make_items(3))
    assert sampled([], size=MAX_SAMPLED) == (0, [])
