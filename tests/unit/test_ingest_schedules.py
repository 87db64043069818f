"""What a file of schedules may say, and how it is told what is wrong."""

from pathlib import Path

import pytest
import yaml

from jobs.ingest.schedules import Schedule, find_schedule, load_schedules
from pipeline.errors import ConfigError

GOOD = {"cron": "30 1 * * *", "source": "s3://in/clips", "out": "s3://out/rows"}


def write(folder: Path, **schedules: dict[str, object]) -> Path:
    file = folder / "ingest.yaml"
    file.write_text(yaml.safe_dump(schedules))
    return file


def test_a_schedule_gives_its_ticks_their_jobs(tmp_path: Path) -> None:
    job = {"ask": "What?", "max-new-tokens": 8, "limits": {"max_bytes": 9}}
    schedule = find_schedule(write(tmp_path, nightly=GOOD | {"job": job}), "nightly")
    made = schedule.batch(7, 1_795_825_800)
    assert made.out == "s3://out/rows/jobs/00000007-20261128T003000Z"
    assert made.job_id == "nightly-20261128T003000Z"
    assert (made.source, made.ask, made.max_new_tokens) == ("s3://in/clips", ("What?",), 8)
    said = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert schedule.batch(7, 1_795_825_800, said) == made


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cron": "0 0 30 2 *"}, "nightly: '0 0 30 2 *' is no time: Bad day-of-month"),
        ({"zone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"overlap": "maybe"}, "nightly: overlap must be 'skip' or 'queue', got maybe"),
        ({"catch_up": 0}, "catch_up must be 'none' or 'last', or at least 1, got 0"),
        ({"catch_up": "al"}, "catch_up must be 'none' or 'last', or a whole number, got al"),
        ({"max-active": 0}, "nightly: max_active must be at least 1, got 0"),
        ({"job": {"aks": "What?"}}, "nightly: there is no field 'aks'; did you mean 'ask'?"),
        ({"job": {"max_new_tokens": 0}}, "nightly: max_new_tokens must be at least 1, got 0"),
        ({"job": {"out": "elsewhere"}}, "job cannot say out"),
        ({"source": "list.csv"}, "source is a manifest"),
        ({"every": "day"}, "nightly: there is no field 'every'; there are"),
        ({"sorce": "clips"}, "nightly: there is no field 'sorce'; did you mean 'source'?"),
        ({"source": "s3://out/rows/in"}, "is inside the output"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_schedule(
    tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    file = write(tmp_path, nightly=GOOD | wrong)
    with pytest.raises(ConfigError) as error:
        load_schedules(file)
    assert str(error.value).startswith(f"{file}: nightly: ")
    assert said in str(error.value)


def test_two_schedules_do_not_share_an_output(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a and b have the same out"):
        load_schedules(write(tmp_path, a=GOOD, b=GOOD | {"out": "s3://out/rows/"}))


def test_a_name_that_is_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, nightly=GOOD)
    file.write_text(file.read_text() + file.read_text().replace("30 1", "30 2"))
    with pytest.raises(ConfigError, match=r"not YAML: nightly is there twice, line 5"):
        load_schedules(file)


@pytest.mark.parametrize("text", ["", "- a", "{", "nightly: 3"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=str(file)):
        load_schedules(file)


def test_the_page_has_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs/ingest.md").read_text("utf-8")
    unsaid = {name for name in Schedule.model_fields if f"{name}:" not in page}
    tabled = {name for name in unsaid if f"| `{name}` |" in page}
    assert unsaid - tabled == {"name"}
