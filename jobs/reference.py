"""docs/configuration.md: every option, setting, column and flag, from the code that reads them.

python -m jobs.reference FILE writes it (`make docs`); a test holds the two equal.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from actors.profile import Profile
from jobs.batch.job import Job
from jobs.batch.job import typed_as as _flag
from jobs.cli import app
from jobs.exits import MEANINGS
from jobs.flags import fields_of, flag_of, metavar_of
from jobs.progress import LogOptions, ProgressOptions
from jobs.serving import ServingOptions
from pipeline.settings import Settings
from pipeline.store.manifest import NAMES
from pipeline.tasks.options import TaskOptions

LABORATORY = (
    "vidray bench",
    "vidray demo-model",
    "vidray lab",
    "vidray simulate",
    "vidray soak",
)  # not here
OF_ANALYZE = (TaskOptions, ServingOptions, ProgressOptions)
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
INTRODUCTION = """\
# Configuration

Written by `make docs` from the code that reads these settings: change them there.

An option is a flag, or a key of a job file (`vidray batch run --job job.yaml`), which takes dashes
or underscores; flags win over the file.

## Exit codes

Of every command.
"""


def reference() -> str:
    """The whole page as Markdown."""
    parts = [
        INTRODUCTION,
        _table(("code", "meaning"), ((f"{code:d}", text) for code, text in MEANINGS.items())),
        *_options("What is asked", "`analyze`, `batch run`, `batch submit`", TaskOptions),
        *_options("What does the work", "the same, and `demo`", ServingOptions),
        *_options("What is said meanwhile", "every command that takes a while", LogOptions),
        *_options(
            "What others are told meanwhile",
            "`analyze`, `batch run`, `batch submit`",
            ProgressOptions,
            but=(LogOptions,),
        ),
        *_options("A job", "`batch run`, `batch submit`", Job, but=OF_ANALYZE),
        *_commands(),
        "## Profile\n\nA YAML file for `--profile`; `vidray profile show` prints one whole.\n",
        _table(("field", "value", "if not given", "what"), _profile_rows(Profile)),
        "## Manifest\n\nColumns of csv, jsonl, json, Parquet; others ride along into `extra`.\n",
        _table(
            ("column", "also taken"),
            ((f"`{name}`", _code(names[1:])) for name, names in NAMES.items()),
        ),
    ]
    return "\n".join(parts)


def _options(
    title: str, commands: str, kind: type[Settings], *, but: Sequence[type[Settings]] = ()
) -> Iterator[str]:
    known = {name: field for other in but for name, field in fields_of(other).items()}
    rows = [
        (
            f"`{_flag(name)}`",
            f"`{name}`",
            _value(field),
            _default(field),
            field.description or "",
        )
        for name, field in fields_of(kind).items()
        if name not in known or field.description != known[name].description
    ]
    yield f"## {title}\n\nFor {commands}.\n"
    yield _table(("flag", "in a job file", "value", "if not given", "what"), rows)


def _commands() -> Iterator[str]:
    """Each command's own flags and arguments."""
    yield "## Flags of single commands\n"
    for name, command in sorted(_leaves(typer.main.get_command(app), "vidray")):
        written = {_typed(parameter): parameter.help or "" for parameter in command.params}
        takes_options = flag_of("reader") in written
        options = Job if takes_options else LogOptions
        known = {_flag(field) for field in fields_of(options)}
        rows = [
            (typed, what)
            for typed, what in written.items()
            if typed not in {*known, flag_of("help")}
        ]
        if rows and not name.startswith(LABORATORY):
            yield f"### `{name}`\n"
            yield _table(
                ("flag or argument", "what"), ((f"`{typed}`", what) for typed, what in rows)
            )


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for key, child in command.commands.items():
        yield from _leaves(child, f"{name} {key}")


def _typed(parameter: Any) -> str:
    is_flag = parameter.opts[0].startswith("-")
    return str(parameter.opts[0] if is_flag else parameter.metavar or parameter.name.upper())


def _profile_rows(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _profile_rows(inner, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", _value(field), _default(field), field.description or ""


def _value(field: FieldInfo) -> str:
    """Its kind and bounds."""
    metavar = "true or false" if field.annotation is bool else metavar_of(field) or ""
    limits = [
        f"{words} {getattr(mark, key)}"
        for mark in field.metadata
        for key, words in BOUNDS.items()
        if hasattr(mark, key)
    ]
    return ", ".join([metavar.replace("|", ", ").strip("[]"), *limits])


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be given"
    if field.default in (None, ()):
        return ""
    shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{shown}`"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
