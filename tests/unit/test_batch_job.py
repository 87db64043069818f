"""A job file and the command line say the same things, and what is wrong is named."""

import re
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from jobs.batch.flags import flags_of, takes_job
from jobs.batch.job import FIELDS, Job, make_job
from jobs.batch.method import make_method, read_method, wish_of
from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, JsonSchema
from pipeline.errors import BadInput, ConfigError, FailureCode, StoreCorrupt
from pipeline.store.items import Item
from pipeline.store.sources import VIDEO_SUFFIXES

NEEDED = {"source": "clips", "out": "out"}
EVERY_FIELD = {
    "source": "s3://bucket/clips",
    "out": "out",
    "model": "models/tiny",
    "caption": False,
    "ask": ["Who?", "-- why?"],
    "choices": "red,blue",
    "schema": None,
    "ground": ["the dog"],
    "at": [0.5, 2.0],
    "fps": 4.0,
    "preset": "paper",
    "long": "windows",
    "overlap": 1.5,
    "start": 1.0,
    "end": 9.0,
    "max_new_tokens": 7,
    "temperature": 0.5,
    "seed": 3,
    "reader": "decord",
    "int8": True,
    "limit": 5,
    "suffix": [".mp4", ""],
    "min_bytes": 1,
    "max_bytes": 100,
    "job_id": "nightly-7",
    "videos_per_part": 9,
    "profile": "laptop.yaml",
    "address": "auto",
    "in_process": False,
    "grace": 90.0,
    "copies": "/scratch",
}


def written(folder: Path, text: str) -> Path:
    file = folder / "job.yaml"
    file.write_text(text)
    return file


def typed(*arguments: str) -> Job:
    """The job that a command gets from these arguments."""
    jobs: list[Job] = []
    app = typer.Typer()

    @app.command()
    @takes_job
    def command(job: Job, loud: bool = False) -> int:
        jobs.append(job)
        return 0

    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    assert result.exit_code == 0, result.output
    return jobs[0]


def test_flags_and_file_make_equal_jobs_field_by_field(tmp_path: Path) -> None:
    assert EVERY_FIELD.keys() == FIELDS.keys()  # whoever adds a field has to add it here
    of_file = make_job(written(tmp_path, yaml.safe_dump(EVERY_FIELD)), {})
    assert typed(*flags_of(EVERY_FIELD)) == of_file
    assert of_file.model_dump(mode="json", by_alias=True) == EVERY_FIELD


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, 'source: a\nout: b\nfps: 4\nask: ["One?"]\ncaption: false\n')
    job = typed("--job", str(file), "--fps", "8", "--caption")
    assert (job.source, job.fps, job.ask, job.caption) == ("a", 8.0, ("One?",), True)
    assert typed("--job", str(file)).caption is False
    assert typed("a", "b").fps == 2.0


def test_every_field_is_documented_and_has_its_flag() -> None:
    assert all(re.search(r"\w{3}.*\.$", field.description or "") for field in FIELDS.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: a\nout: b\nquestons: [x]", "no field 'questons'; there are source, out"),
        ("source: a\nout: b\nvideo_per_part: 3", "did you mean 'videos_per_part'"),
        ("source: a\nout: b\ngrounds: [x]", "did you mean 'ground'"),
        ("source: a\nout: b\nfps: fast", "fps: .*number.*'fast'"),
        ("source: a\nout: b\nlimit: 0", "limit: .*greater.*0"),
        ("source: a\nout: b\nlong: short", "long: .*'fit' or 'windows'"),
        ("source: a\nout: b\nat: .nan", "at"),
        ("source: a", "out is missing: Where rows go"),
        ("- a\n- b", "mapping of field names"),
        ("a: [", "not YAML"),
        ("source: !!python/object/apply:os.getcwd []\nout: b", "not YAML"),
    ],
)
def test_a_wrong_job_file_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"job.yaml: .*{says}"):
        make_job(written(tmp_path, text), {})


def test_a_job_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        make_job(Path("/no/such/job.yaml"), {})


def test_fields_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--at needs --ground"):
        wish_of(Job(**NEEDED, at=(1.0,)))
    with pytest.raises(ConfigError, match="needs words"):
        make_method(Job(**NEEDED, ask=("  ",)), Sampling())


@pytest.mark.parametrize("constraint", ["choices", "schema", "none"])
def test_a_method_comes_back_from_the_plan_as_it_was(tmp_path: Path, constraint: str) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    how = {"choices": {"choices": "a,b"}, "schema": {"schema": schema}, "none": {}}[constraint]
    job = Job(**NEEDED, ask=("Who?",), ground=("it",), at=(1.0,), start=2.0, **how)
    method = make_method(job, Sampling(top_k=1, stop=("x",)))
    assert read_method(method.to_json()) == method
    kinds = {"choices": Choices, "schema": JsonSchema, "none": type(None)}
    assert isinstance(method.tasks.asks[0].constraint, kinds[constraint])
    assert method.source_filter.suffixes == VIDEO_SUFFIXES


def test_a_plan_with_other_settings_is_reported() -> None:
    with pytest.raises(StoreCorrupt, match="settings"):
        read_method('{"tasks": 1}')


def test_how_much_of_a_machine_is_taken_makes_no_other_job() -> None:
    one = make_method(Job(**NEEDED), Sampling())
    other = make_method(Job(**NEEDED, profile="p.yaml", address="auto", copies="/x"), Sampling())
    assert one.to_json() == other.to_json()
    assert one.to_json() != make_method(Job(**NEEDED, fps=1.0), Sampling()).to_json()


def test_a_videos_own_questions_are_added_and_bad_ones_are_its_own_fault() -> None:
    method = make_method(Job(**NEEDED, ask=("All?",)), Sampling())
    own = method.tasks_for(Item(uri="/a.mp4", questions=("Mine?",), ground=("it",)))
    assert [ask.question for ask in own.asks] == ["All?", "Mine?"]
    assert [ground.query for ground in own.grounds] == ["it"]
    with pytest.raises(BadInput) as error:
        method.tasks_for(Item(uri="/a.mp4", questions=(" ",)))
    assert error.value.code is FailureCode.BAD_PROMPT
