"""A profile says how much of a machine to take, and is refused with the field's name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from actors.profile import Profile
from deploy.profiles import bundled, load_profile
from jobs.batch.job import Job
from jobs.batch.remote import entrypoint
from jobs.profiles import commented, show
from pipeline.errors import ConfigError


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its dotted name."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


@pytest.mark.parametrize("name", bundled())
def test_every_profile_that_comes_with_vidray_is_meant_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_profile(Path(name)).name == name


def test_a_file_is_a_profile_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{name: mine, videos_in_flight: 3}")
    assert load_profile(file) == Profile(name="mine", videos_in_flight=3)


def test_the_laptop_profile_is_the_default() -> None:
    assert load_profile(Path("laptop")) == Profile()


@pytest.mark.parametrize("name", bundled())
def test_idle_videos_may_keep_half_of_what_decoders_hold_or_what_is_given(name: str) -> None:
    profile = load_profile(Path(name))
    decoders, hosts = profile.decoders, profile.stream_hosts
    half = decoders.num_replicas * decoders.kv_tokens / 2
    assert profile.session_limits.max_tokens == half // hosts
    sessions = profile.sessions.model_copy(update={"idle_tokens": 1_000})
    given = profile.model_copy(update={"sessions": sessions, "stream_hosts": 2})
    assert given.session_limits.max_tokens == 500


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
        load_profile(path)


def test_a_missing_profile_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such profile.* gpu1-7b, .*gpu8-72b, laptop"):
        load_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", bundled())
def test_what_is_shown_of_a_profile_loads_as_the_same_one(name, tmp_path, capsys):
    show(Path(name))
    file = tmp_path / "copy.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_profile(file) == load_profile(Path(name))


def test_every_setting_is_shown_with_what_it_means() -> None:
    shown = " ".join(commented(Profile()).replace("#", " ").split())
    for name, field in fields(Profile):
        assert field.description, f"{name} has no description"
        assert f"{field.description} {name.rpartition('.')[2]}: " in shown


def test_a_submitted_job_means_the_same_profile_in_any_folder() -> None:
    job = Job(source="s3://clips", out="s3://rows", profile=Path("gpu1-7b"))
    assert "--profile=gpu1-7b " in entrypoint(job)
    own = job.model_copy(update={"profile": Path("mine.yaml")})
    assert f"--profile={Path('mine.yaml').absolute()}" in entrypoint(own)
