"""Errors as values that travel between processes."""

import pickle
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import actors
import deploy
import jobs
import pipeline
from jobs.serve.refusals import Refusal
from pipeline.errors import BadInput, CheckpointError, FailureCode, VidrayError

PACKAGES = (pipeline, actors, jobs, deploy)
NEEDS_VLLM = tuple(f"actors.vllm.{name}" for name in ("async_engine", "sliced_model", "start"))
# Of those whose constructor takes more than a sentence.
EXAMPLES = {
    Refusal: [Refusal(429, "busy", "too much is being answered", retry_after_s=2)],
    BadInput: [BadInput(code, "12 frames; limit 8") for code in FailureCode],
    CheckpointError: [
        CheckpointError("config.json", "it is not JSON"),
        CheckpointError("model.safetensors", "5 rows, not 6", tensor="lm_head.weight"),
    ],
}


def our_errors() -> list[type[Exception]]:
    """Every exception class of the project, wherever it is defined."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in NEEDS_VLLM or find_spec("vllm"):
                import_module(module.name)
    roots = tuple(package.__name__ for package in PACKAGES)
    kinds = {kind for kind in subclasses(Exception) if kind.__module__.split(".")[0] in roots}
    return sorted(kinds, key=lambda kind: kind.__qualname__)


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_arrives_in_another_process_as_it_was_raised():
    kinds = our_errors()
    assert {VidrayError, BadInput, CheckpointError} < set(kinds)
    for kind in kinds:
        for error in EXAMPLES.get(kind) or [kind("what was wrong")]:
            error.add_note("seen in part 3")
            copy = pickle.loads(pickle.dumps(error))  # noqa: S301
            assert type(copy) is kind
            assert (str(copy), copy.args) == (str(error), error.args)
            assert vars(copy) == vars(error)


def test_a_refusal_says_its_code_and_why():
    for code in FailureCode:
        assert str(BadInput(code, "12 frames; limit 8")) == f"{code.value}: 12 frames; limit 8"


def test_codes_are_stable_names_in_lower_case():
    """They are column values in users' tables: spelled like their name, and nothing else."""
    assert [code.value for code in FailureCode] == [code.name.lower() for code in FailureCode]
