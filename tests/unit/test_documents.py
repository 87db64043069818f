"""What the documents say stands somewhere does stand there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *("ARCHITECTURE.md", "README.md", "RESULTS.md", "CHANGELOG.md"),
    *("docs/batch.md", "docs/watching.md"),
)
MAX_README_LINES = 150
MAX_TREE_LINES = 40
IN_REPOSITORY = re.compile(r"`((?:pipeline|actors|jobs|deploy|tests)/[\w./-]*)`")


def tree(text: str) -> list[str]:
    return text.split("```")[1].strip().splitlines()


def tree_paths(lines: list[str]) -> Iterator[str]:
    """Every folder and file of an indented tree, and the modules its remarks name."""
    above: list[str] = []
    for line in lines:
        name, *remark = line.split(maxsplit=1)
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        path = "".join(above)
        yield path
        folder = path if path.endswith("/") else path.rpartition("/")[0] + "/"
        yield from (f"{folder}{module}" for module in re.findall(r"\w+\.py", "".join(remark)))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_in_a_document_exists(name):
    paths = IN_REPOSITORY.findall((ROOT / name).read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_tree_is_of_this_repository_and_fits_a_page():
    lines = tree((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert len(lines) <= MAX_TREE_LINES
    assert [path for path in tree_paths(lines) if not (ROOT / path).exists()] == []


def test_the_readme_is_read_in_a_few_minutes():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_between_documents_leads_somewhere(name):
    document = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []
