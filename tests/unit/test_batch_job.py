"""A job file and the command line say the same things, and what is wrong is named."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from actors import profile
from deploy.profiles import load_profile
from jobs.batch.job import FIELDS, Job, make_job
from jobs.batch.job_flags import flags_of, takes_job
from jobs.batch.method import make_method, read_method
from jobs.batch.prepare import Prepared
from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, JsonSchema
from pipeline.errors import BadInput, ConfigError, FailureCode, StoreCorrupt
from pipeline.store.items import Item
from pipeline.store.job_plan import JobPlan
from pipeline.store.sources import VIDEO_SUFFIXES
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

NEEDED = {"source": "clips", "out": "out"}


def an_example(field: FieldInfo) -> Any:
    """Some value that the field takes and that is not its default, as a job file would have it."""
    value = next(value for value in EXAMPLES if is_taken(field, value) and value != field.default)
    return [value] if isinstance(field.default, tuple) else value


EXAMPLES = (False, True, 4, '{"type": "object"}', "windows", "decord", ["red", "a, b"], "not_found")


def is_taken(field: FieldInfo, value: Any) -> bool:
    if isinstance(value, bool) != (field.annotation is bool):
        return False
    kind = TypeAdapter(Annotated[field.annotation, *field.metadata, "an example"])
    with suppress(ValidationError):
        return kind.validate_python(value) is not None
    return False


EXCLUDED = {"schema", "in_process", "verbose"}  # by choices, by address, by quiet
EVERY_FIELD = {name: an_example(field) for name, field in FIELDS.items() if name not in EXCLUDED}
EVERY_FIELD |= {"start": 1.0, "choices": ["red", "a, b"], "min_bytes": 2}
EVERY_FIELD |= {"preset": "paper", "job_id": "j.1", "metrics": "h:9"}  # what long allows; no JSON


def nested(fields: dict[str, Any]) -> dict[str, Any]:
    """As a job file has them: limits.max_bytes is in a section."""
    sections: dict[str, Any] = {}
    for name, value in fields.items():
        section, dot, key = name.partition(".")
        if dot:
            sections.setdefault(section, {})[key] = value
    return {name: value for name, value in fields.items() if "." not in name} | sections


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
    every_field = nested(EVERY_FIELD)
    of_file = make_job(written(tmp_path, yaml.safe_dump(every_field)), {})
    assert typed(*flags_of(every_field)) == of_file
    as_sent = of_file.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert as_sent == every_field
    assert typed(*flags_of(as_sent)) == of_file


@pytest.mark.parametrize("name", sorted(EXCLUDED))
def test_what_excludes_another_field_has_its_flag_too(tmp_path: Path, name: str) -> None:
    fields = NEEDED | {"ask": ["Who?"], name: an_example(FIELDS[name])}
    of_file = make_job(written(tmp_path, yaml.safe_dump(fields)), {})
    assert typed(*flags_of(fields)) == of_file
    assert of_file.model_dump(mode="json", by_alias=True, exclude_unset=True) == fields


@pytest.mark.parametrize("spelled", ["max_new_tokens", "max-new-tokens"])
def test_a_job_file_takes_dashes_and_underscores(tmp_path: Path, spelled: str) -> None:
    file = written(tmp_path, f"source: a\nout: b\n{spelled}: 7")
    assert make_job(file, {}).max_new_tokens == 7
    file = written(tmp_path, f"source: a\nout: b\n{spelled}: 0")
    with pytest.raises(ConfigError, match=f"job.yaml: {spelled} must be at least 1, got 0"):
        make_job(file, {})
    with pytest.raises(ConfigError, match="^--max-new-tokens must be at least 1, got 0"):
        make_job(file, {"max_new_tokens": "0"})


def test_a_field_is_not_written_twice(tmp_path: Path) -> None:
    file = written(tmp_path, "source: a\nout: b\njob-id: x\njob_id: y")
    with pytest.raises(ConfigError, match="job-id and job_id are the same field"):
        make_job(file, {})


def test_one_string_is_one_question_and_one_number_one_second(tmp_path: Path) -> None:
    file = written(tmp_path, "source: a\nout: b\nask: Who?\nground: the dog\nat: 2\nsuffix: .mp4")
    job = make_job(file, {})
    assert (job.ask, job.ground, job.at, job.suffix) == (("Who?",), ("the dog",), (2.0,), (".mp4",))


def test_a_schema_is_a_file_or_stands_there_itself(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    start = "source: a\nout: b\nask: Who?\n"
    for text in (f"schema: {schema}", "schema: {type: object}", 'schema: \'{"type": "object"}\''):
        assert make_job(written(tmp_path, start + text), {}).answer_schema == schema.read_text()
    with pytest.raises(ConfigError, match=r"schema /no/such.json cannot be read"):
        make_job(written(tmp_path, start + "schema: /no/such.json"), {})
    assert (
        typed("a", "b", "--ask", "?", "--schema", str(schema)).answer_schema == schema.read_text()
    )


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
        (
            "source: a\nout: b\nzoo: [x]",
            "no field 'zoo'; there are model, .*out",
        ),
        ("source: a\nout: b\nvideo_per_part: 3", "did you mean 'videos_per_part'"),
        ("source: a\nout: b\ngrounds: [x]", "did you mean 'ground'"),
        ("source: a\nout: b\nfps: fast", "fps must be a number, got fast"),
        ("source: a\nout: b\nlimit: 0", "limit must be at least 1, got 0"),
        ("source: a\nout: b\nlong: short", "long must be 'fit' or 'windows', got short"),
        ("source: a\nout: b\nat: .nan", "at must be a finite number"),
        ("source: a\nout: b\nat: {x: 1}", 'at must be a list, got {"x": 1}'),
        ("source: a\nout: b\nask: [[x]]", r'ask must be a text, got \["x"\]'),
        ("source: a\nout: b\ncaption: maybe", "caption must be true or false, got maybe"),
        ("source: a\nout: b\nmodel: 3", "model must be a path, got 3"),
        ("source: a\nout: b\nseed: 1.5", "seed must be a whole number, got 1.5"),
        ("source: a\nout: b\nvideos-per-part: 40000", "videos-per-part must be at most 32768"),
        ("source: a\nout: b\nask: x\nchoices: '[1'", "choices: not a JSON list"),
        ("source: a\nout: b\nat: 1", "at needs ground"),
        ("source: a\nout: b\nin-process: true\naddress: auto", "in-process excludes address"),
        ("source: a", "out is missing"),
        ("- a\n- b", "mapping of field names"),
        ("source: a\nout: b\nask: x\nchoices: [yes, no]", r"a text, got true \(in YAML yes, no"),
        ("source: a\nout: b\nask: x\nschema: no.json", "no.json cannot be read: No such file"),
        ("a: [", "not YAML: .*, but found .*, line 1, column 5: a: "),
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
        make_job(None, NEEDED | {"at": ["1.0"]})
    with pytest.raises(ConfigError, match="needs words"):
        make_method(Job(**NEEDED, ask=("  ",)), Sampling())


@pytest.mark.parametrize("constraint", ["choices", "schema", "none"])
def test_a_method_comes_back_from_the_plan_as_it_was(constraint: str) -> None:
    schema = {"type": "object"}
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


def test_a_job_is_gone_on_with_in_the_same_numbers_and_by_the_same_engine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of float32, bfloat16, int8 and vLLM are not one job's."""
    (tmp_path / "clips").mkdir()
    make(tmp_path / "clips", Clip(num_frames=2))
    own = load_profile(Path("laptop"))
    needed = {
        "source": str(tmp_path / "clips"),
        "out": str(tmp_path / "out"),
        "model": write_folder(tmp_path / "model"),
    }

    def plan(name: str, **changes: object) -> JobPlan:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(own.model_copy(update=changes).model_dump(mode="json")))
        return Prepared.of(Job(**needed, profile=file)).plan()

    first = plan("float32")
    assert first.spec.numerics == "float32 on cpu"
    assert plan("slower", stall_s=1.0) == first
    int8 = own.decoders.model_copy(update={"int8": True})
    vllm = own.decoders.model_copy(update={"engine": "vllm"})
    monkeypatch.setattr(profile, "require_vllm", lambda: "0.32.0")  # which need not be here
    for name, other in {
        "bfloat16": {"dtype": "bfloat16"},
        "cuda": {"device": "cuda"},
        "int8": {"decoders": int8},
        "vllm": {"decoders": vllm},
    }.items():
        with pytest.raises(ConfigError, match=r"number format or engine \(float32 on cpu\)"):
            plan(name, **other)
