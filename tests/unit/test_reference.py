"""Pages that are written from code say what the code does."""

from pathlib import Path

import pytest

from jobs.batch.job import FIELDS, typed_as
from jobs.documents import WRITTEN
from jobs.reference import reference

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_from_code_is_what_make_docs_writes(name: str) -> None:
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == WRITTEN[name](), "run make docs"


def test_every_field_of_a_job_is_in_it() -> None:
    page = reference()
    for name in FIELDS:
        assert f"| `{typed_as(name)}` | `{name}` |" in page


def test_whoever_contributes_is_told_of_files_that_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [word for word in page.split("`")[1::2] if "/" in word and " " not in word]
    missing = [name for name in named if not (ROOT / name).exists() and "schema-N" not in name]
    assert missing == []
