"""Errors as values that travel between processes."""

import pickle

import pytest

from pipeline.errors import BadInput, FailureCode


@pytest.mark.parametrize("code", FailureCode)
def test_a_refusal_keeps_its_code_and_sentence_across_processes(code):
    copy = pickle.loads(pickle.dumps(BadInput(code, "12 frames; limit 8")))  # noqa: S301
    assert (copy.code, copy.detail) == (code, "12 frames; limit 8")
    assert str(copy) == f"{code.value}: 12 frames; limit 8"


def test_codes_are_stable_names_in_lower_case():
    """They are column values in users' tables: spelled like their name, and nothing else."""
    assert [code.value for code in FailureCode] == [code.name.lower() for code in FailureCode]
