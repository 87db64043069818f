"""What the documents say stands somewhere does stand there."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from jobs import cli
from jobs.batch.job import Job
from jobs.models import DEMO_MODEL
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.model.check import check_model
from pipeline.store.s3_config import PATIENCE
from tests.conftest import Vidray

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *("ARCHITECTURE.md", "README.md", "RESULTS.md", "CHANGELOG.md"),
    *(
        "docs/batch.md",
        "docs/endpoint.md",
        "docs/watching.md",
        "docs/scale.md",
        "docs/metrics.md",
        "docs/schema.md",
    ),
    *("docs/first-five-minutes.md", "docs/operations.md", "docs/security.md"),
    *("docs/performance.md", "docs/ingest.md", "docs/deploy.md"),
)
DOCS = sorted((ROOT / "docs").glob("*.md"))
MAX_README_LINES = 150
MAX_TREE_LINES = 45
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


PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in DOCS))
COMMAND = typer.main.get_command(cli.app)


def typed_commands(text: str) -> Iterator[str]:
    """What a page says to type: lines of its blocks, and commands within its sentences."""
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        yield from re.findall(r"^(?:\.venv/bin/)?(vidray .*)$", block.replace("\\\n", ""), re.M)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from (" ".join(span.split()) for span in re.findall(r"`(vidray\s[^`]*)`", prose))


def unknown_in(line: str) -> list[str]:
    """The words of a command line that the command does not know."""
    command: Any = COMMAND
    _, *words = shlex.split(line, comments=True)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    flags = {word.partition("=")[0] for word in words if word.startswith("-")} - {"-h", "--help"}
    known = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    is_short_of_a_command = hasattr(command, "commands") and not flags
    return sorted(flags - known) + ([line] if is_short_of_a_command and words else [])


@pytest.mark.parametrize("name", PAGES)
def test_every_command_that_a_page_says_to_type_is_one(name: str) -> None:
    lines = list(typed_commands((ROOT / name).read_text("utf-8")))
    assert {line: unknown for line in lines if (unknown := unknown_in(line))} == {}
    if name == "README.md":
        assert len(lines) > 15


@pytest.mark.parametrize("name", PAGES)
def test_every_target_of_make_that_a_page_names_is_one(name: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / name).read_text("utf-8"), re.M))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert named - targets == set()


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*words, name))


def test_minus_h_after_any_command_says_what_it_takes(vidray: Vidray) -> None:
    for words in leaves(COMMAND):
        code, said, _ = vidray(*words, "-h")
        assert (code, said.lstrip().startswith("Usage: ")) == (0, True), words


FIGURES = {
    "README.md": {
        r"`--grace` seconds \((\d+)\)": Job.model_fields["grace"].default,
        r"At most ([\d,]+) video tokens a window": QWEN2_VL.max_window_tokens,
        r"`vidray-demo` \((\d\.\d) M parameters": round(
            check_model(DEMO_MODEL).num_parameters / 1e6, 1
        ),
    },
    "docs/batch.md": {
        r"After `--patience` \((\d+) s\)": Job.model_fields["patience"].default,
        r"asked `AWS_MAX_ATTEMPTS` times \((\d+),": PATIENCE.attempts,
    },
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_a_page_are_the_codes(name: str) -> None:
    text = " ".join((ROOT / name).read_text("utf-8").split())
    for pattern, figure in FIGURES[name].items():
        said = re.search(pattern, text)
        assert said is not None, pattern
        assert float(said[1].replace(",", "")) == figure, pattern


def test_an_environment_takes_no_more_room_than_readme_says() -> None:
    environment = ROOT / ".venv"
    if Path(sys.prefix) != environment:
        pytest.skip("not the one that make sets up")
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    kind = "CPUs" if torch.version.cuda is None else "CUDA"
    said = re.search(rf"for {kind} \(([\d.]+)[ )]", text)
    assert said is not None
    files = (Path(folder, name) for folder, _, names in os.walk(environment) for name in names)
    size_gb = sum(file.lstat().st_blocks * 512 for file in files) / 1e9
    assert size_gb < 1.05 * float(said[1])
