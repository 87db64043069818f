"""What a video may cost is the operator's to set and the job's to lower, in a file or by flags."""

from pathlib import Path

import pytest

from actors.profile import Profile
from jobs import cli
from jobs.batch.job import make_job
from jobs.batch.method import make_method, read_method
from jobs.serving import ServingOptions
from jobs.workplace import Workplace
from pipeline.config import DecodeLimits, Sampling
from pipeline.errors import ConfigError
from pipeline.limits import LimitOptions
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

PROFILE = "name: small\nlimits: {max_pixels: 5000, memory_bytes: 9000000000}\n"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(PROFILE)
    return file


def typed(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["vidray", *map(str, arguments)])
    code = int(cli._run())
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_profile_sets_limits_higher_or_lower_than_the_built_in_ones(profile: Path) -> None:
    limits = Workplace(profile=profile).limits(LimitOptions())
    assert (limits.max_pixels, limits.memory_bytes) == (5000, 9_000_000_000)
    assert limits.wall_s == DecodeLimits().wall_s
    assert limits.ahead_bytes == Profile().readers.ahead_bytes


def test_a_job_lowers_limits_and_cannot_raise_them(profile: Path) -> None:
    workplace = Workplace(profile=profile)
    lowered = workplace.limits(LimitOptions(max_pixels=100, wall_s=2.5))
    assert (lowered.max_pixels, lowered.wall_s) == (100, 2.5)
    with pytest.raises(ConfigError, match="max_pixels is 5000 in profile small, got 5001: a job"):
        workplace.limits(LimitOptions(max_pixels=5001))
    with pytest.raises(ConfigError, match="got 99999999999999: a job"):
        Workplace().limits(LimitOptions(memory_bytes=99_999_999_999_999))
    with pytest.raises(ConfigError, match="wall_s is 600 in profile laptop, got 601"):
        Workplace().limits(LimitOptions(wall_s=601))


def test_a_wrong_limit_is_named_as_it_was_written(tmp_path: Path, monkeypatch, capsys) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("source: a\nout: b\nlimits: {max-bytes: 0}")
    with pytest.raises(ConfigError, match=r"job.yaml: limits.max-bytes must be at least 1, got 0"):
        make_job(file, {})
    file.write_text("source: a\nout: b\nlimits: {max_byte: 1}")
    with pytest.raises(ConfigError, match=r"did you mean 'limits.max_bytes'"):
        make_job(file, {})
    code, said = typed(monkeypatch, capsys, "analyze", "a.mp4", "--limits-wall-s", "soon")
    assert (code, said) == (2, "vidray: --limits-wall-s must be a number, got soon\n")
    wrong = tmp_path / "profile.yaml"
    wrong.write_text("limits: {wall_s: soon}")
    with pytest.raises(ConfigError, match=r"profile.yaml: limits.wall_s"):
        Profile.load(wrong)


def test_flags_win_over_a_job_files_section_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("source: a\nout: b\nlimits:\n  max-bytes: 7\n  wall_s: 3")
    assert make_job(file, {"limits.wall_s": "2"}).limits == LimitOptions(max_bytes=7, wall_s=2)


def test_a_jobs_own_limits_stand_in_its_plan_and_a_profiles_do_not(profile: Path) -> None:
    fields = {"source": "a", "out": "b"}
    plain = make_method(make_job(None, fields), Sampling())
    of_profile = make_method(make_job(None, fields | {"profile": str(profile)}), Sampling())
    lowered = make_method(make_job(None, fields | {"limits.max_pixels": "100"}), Sampling())
    assert plain.to_json() == of_profile.to_json()
    assert "limits" not in plain.to_json()
    assert read_method(lowered.to_json()) == lowered
    assert lowered.limits == LimitOptions(max_pixels=100)


def test_a_limit_reaches_the_reader_and_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    clip = make(tmp_path, Clip(num_frames=6, fps=6))
    model = write_folder(tmp_path / "model")
    start = ("analyze", clip, "--in-process", "--model", model)
    code, said = typed(monkeypatch, capsys, *start, "--limits-max-pixels", 100)
    assert code == 3
    assert "too_many_pixels" in said
    code, said = typed(monkeypatch, capsys, *start, "--limits-wall-s", 1000)
    assert code == 2
    assert "wall_s is 600" in said
    run = ("batch", "run", clip, tmp_path / "out", "--in-process", "--model", model)
    assert typed(monkeypatch, capsys, *run, "--limits-max-bytes", 10**12)[0] == 2
    assert not (tmp_path / "out").exists()
    assert typed(monkeypatch, capsys, *run, "--limits-max-pixels", 100)[0] == 3


def test_every_limit_of_an_operator_is_one_of_decoding() -> None:
    names = set(LimitOptions.model_fields)
    assert names <= set(DecodeLimits.__dataclass_fields__)
    assert {"limits"} <= set(ServingOptions.model_fields) & set(Profile.model_fields)
