"""docs/configuration.md says what the code does."""

from pathlib import Path

from jobs.batch.job import FIELDS
from jobs.batch.job_flags import POSITIONAL
from jobs.flags import flag_of
from jobs.reference import reference

ROOT = Path(__file__).parents[2]


def test_the_configuration_reference_is_what_make_docs_writes() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference(), "run make docs"


def test_every_field_of_a_job_is_in_it() -> None:
    page = reference()
    for name in FIELDS:
        assert f"| `{POSITIONAL.get(name, flag_of(name))}` | `{name}` |" in page


def test_whoever_contributes_is_told_of_files_that_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [word for word in page.split("`")[1::2] if "/" in word and " " not in word]
    missing = [name for name in named if not (ROOT / name).exists() and "schema-N" not in name]
    assert missing == []
