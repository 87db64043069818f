"""An option is one field: its flag, its place in a job file, its words and its effect follow."""

import re

import pytest
import typer
from pydantic import Field, ValidationError
from typer.testing import CliRunner

from jobs.flags import build, fields_of, takes
from jobs.serving import ServingOptions
from pipeline.config import Sampling
from pipeline.errors import ConfigError
from pipeline.settings import Settings, explain
from pipeline.tasks.options import TaskOptions
from pipeline.tasks.resolve import make_sampling


class MoreOptions(TaskOptions):
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Likeliest tokens to choose from, by their share."
    )


@pytest.fixture
def run():
    """A command with the options' flags; returns them, or what is wrong with them."""
    app = typer.Typer()
    got: list[TaskOptions] = []

    @app.command()
    @takes(MoreOptions)
    def command(options: MoreOptions, clip: str) -> int:
        got.append(options)
        return 0

    def invoke(*arguments: str) -> MoreOptions | str:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
        if isinstance(result.exception, ConfigError):
            return str(result.exception)
        return got.pop() if got else result.output

    return invoke


def test_a_new_field_is_a_flag_with_its_words_its_bounds_and_its_effect(run):
    assert re.search(r"--top-p +NUMBER +Likeliest tokens", run("--help"))
    assert run("a.mp4", "--top-p", "2") == "--top-p must be at most 1, got 2"
    options = run("a.mp4", "--top-p", "0.5", "--temperature", "1")
    assert make_sampling(options, Sampling(top_k=1)) == Sampling(temperature=1.0, top_p=0.5)
    assert run("a.mp4").top_p is None


@pytest.mark.parametrize("kind", [TaskOptions, ServingOptions])
def test_every_option_says_what_it_does(kind):
    for name, field in fields_of(kind).items():
        assert re.fullmatch(r"\w.*\.", field.description or ""), name


def test_programs_name_a_field_without_dashes():
    with pytest.raises(ConfigError, match="^max_new_tokens must be at least 1, got 0$"):
        build(TaskOptions, {"max_new_tokens": 0}, str)
    with pytest.raises(ConfigError, match="^at needs ground$"):
        build(TaskOptions, {"at": 1}, str)


def test_a_choice_may_hold_a_comma_where_it_is_a_list():
    assert TaskOptions(ask="?", choices="a, b").choices == ("a", "b")
    assert TaskOptions(ask="?", choices=["a, b", "c"]).choices == ("a, b", "c")
    assert TaskOptions(ask="?", choices='["a, b", "c"]').choices == ("a, b", "c")


class EveryKind(Settings):
    rate: float = 1.0
    limit: int | None = None
    at: tuple[float, ...] = ()
    is_on: bool = False
    steps: bool | int = 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate", True, "rate must be a number, got true"),
        ("limit", False, "limit must be a whole number, got false"),
        ("at", [1.5, True], "at must be a number, got [1.5, true]"),
    ],
)
def test_true_and_false_are_no_numbers(name: str, value: object, expected: str):
    with pytest.raises(ValidationError) as caught:
        EveryKind.model_validate({name: value})
    assert explain(caught.value) == expected


def test_true_and_false_are_taken_where_they_are_meant():
    taken = EveryKind.model_validate({"is_on": True, "steps": True, "rate": "1.5"})
    assert (taken.is_on, taken.steps, taken.rate) == (True, True, 1.5)
