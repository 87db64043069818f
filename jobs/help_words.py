"""Help in people's words: typer names a value without a name of its own by its Python type."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

# Of options, as all flags that are fields name them; an argument is named by itself.
_VALUES = {"path": "PATH", "str": "TEXT", "int": "NUMBER", "float": "NUMBER"}
_TYPE = re.compile(r" <(\w+)[^>]*>$")


class PlainCommand(TyperCommand):
    """A command whose help says PATH, TEXT and NUMBER."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write = formatter.write_dl

        def write_plain(rows: Sequence[tuple[str, str]], *more: Any, **options: Any) -> None:
            write([(plain(name), words) for name, words in rows], *more, **options)

        formatter.write_dl = write_plain
        super().format_options(ctx, formatter)


def plain(name: str) -> str:
    """What stands in front of a line of help."""

    def spell(found: re.Match[str]) -> str:
        return f" {_VALUES[found[1]]}" if name.startswith("-") and found[1] in _VALUES else ""

    return _TYPE.sub(spell, name)


def speak_plainly(app: typer.Typer) -> None:
    """In all commands that it has by now."""
    for group in _groups(app):
        for command in group.registered_commands:
            command.cls = PlainCommand


def _groups(app: typer.Typer) -> Iterator[typer.Typer]:
    yield app
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _groups(group.typer_instance)
