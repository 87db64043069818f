"""Flags from fields: names, bounds, defaults and help have one source, the model of the options."""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import ConfigError
from pipeline.settings import Settings, explain
from pipeline.tasks.options import Flag

MAX_FILE_BYTES = 1 << 20
Kind = TypeVar("Kind", bound=Settings)
_METAVARS: dict[Any, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}


def takes(
    *kinds: type[Settings], positional: Mapping[str, str] | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give `command(options, ...)` a flag for each field of these kinds of options, in this order.

    Its other parameters stay arguments and flags of its own. positional: as of flags_for.
    """

    def spell(name: str) -> str:
        return (positional or {}).get(name) or flag_of(name)

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def run(**given: Any) -> int:
            options = [build(kind, typed(kind, given), spell) for kind in kinds]
            return command(*options, **given)

        own = parameters_of(command)[len(kinds) :]
        flags = [flag for kind in kinds for flag in flags_for(kind, positional)]
        return signed(run, command, [*flags, *own])

    return decorate


def typed(kind: type[Settings], given: dict[str, Any]) -> dict[str, Any]:
    """Take this kind's flags out of everything given; what was not typed is left out."""
    flags = {name: given.pop(_parameter_name(name)) for name in fields_of(kind)}
    return {name: value for name, value in flags.items() if value not in (None, [])}


def build(
    kind: type[Kind], values: Mapping[str, Any], spell: Callable[[str], str] | None = None
) -> Kind:
    """Options of these values; ConfigError names the first wrong one. spell: as it was written."""
    spell = spell or flag_of
    fields = fields_of(kind)
    try:
        read = {
            name: _content(value, spell(name)) if _flag(fields.get(name)).is_file else value
            for name, value in values.items()
        }
        return kind.model_validate(_nested(read))
    except ValidationError as error:
        raise ConfigError(explain(error, spell)) from error


def fields_of(kind: type[Settings]) -> dict[str, FieldInfo]:
    """Every field by the name that people use; those of a section as "section.field"."""
    fields: dict[str, FieldInfo] = {}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            inner = fields_of(field.annotation)
            fields |= {f"{name}.{key}": value for key, value in inner.items()}
        else:
            fields[field.alias or name] = field
    return fields


def flag_of(name: str) -> str:
    """A field as it is typed."""
    return "--" + _parameter_name(name).replace("_", "-")


def flags_for(
    kind: type[Settings], positional: Mapping[str, str] | None = None
) -> list[inspect.Parameter]:
    """Parameters as typer reads them. positional: fields that are arguments, by their metavar."""
    arguments = positional or {}
    return [_parameter(name, field, arguments) for name, field in fields_of(kind).items()]


def parameters_of(command: Callable[..., int]) -> list[inspect.Parameter]:
    """A command's own, each by keyword."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]


def signed(
    run: Callable[..., int], command: Callable[..., int], parameters: list[inspect.Parameter]
) -> Callable[..., int]:
    """`run` with the command's name and words, and these parameters."""
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def arguments_of(
    kind: type[Settings], values: Mapping[str, Any], positional: Mapping[str, str]
) -> list[str]:
    """Values as they are typed: the way back."""
    fields = fields_of(kind)
    flags: list[str] = []
    for name, value in flattened(kind, values).items():
        flag = flag_of(name)
        if name in positional or value is None:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list) and not _flag(fields[name]).once:
            flags += [f"{flag}={one}" for one in value]
        else:
            flags.append(f"{flag}={json.dumps(value) if isinstance(value, list) else value}")
    return [*flags, "--", *(str(values[name]) for name in positional)]


def _parameter(name: str, field: FieldInfo, arguments: Mapping[str, str]) -> inspect.Parameter:
    """Not given is None: the default is the field's, and a job file may stand in between.

    Numbers come as texts, for the field to read: one judge, one way to say what is wrong.
    """
    what = typer.Argument if name in arguments else typer.Option
    hint = _without_none(field.annotation)
    metavar = arguments.get(name) or metavar_of(field)
    info = what(help=help_of(field), show_default=False, metavar=metavar)
    kind: Any = str
    if hint is bool:
        kind = bool
    elif get_origin(hint) is tuple and not _flag(field).once:
        kind = list[str]
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(
        _parameter_name(name), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parameter_name(name: str) -> str:
    return name.replace(".", "_")


def flattened(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of sections as "section.field"."""
    fields = fields_of(kind)
    flat: dict[str, Any] = {}
    for name, value in values.items():
        is_section = isinstance(value, Mapping) and name not in fields
        flat |= (
            {f"{name}.{key}": one for key, one in value.items()} if is_section else {name: value}
        )
    return flat


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The way back."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, key = name.partition(".")
        if dot:
            nested.setdefault(section, {})[key] = value
        else:
            nested[name] = value
    return nested


def metavar_of(field: FieldInfo) -> str | None:
    """What stands for the value in --help."""
    hint = _without_none(field.annotation)
    if flag := _flag(field).metavar:
        return flag
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return f"[{'|'.join(map(str, get_args(hint)))}]"
    return _METAVARS.get(hint)


def help_of(field: FieldInfo) -> str:
    """What it does, and what holds where it is not given."""
    says_itself = field.is_required() or field.default in (None, ()) or field.annotation is bool
    return f"{field.description}" + ("" if says_itself else f" ({field.default} if not given)")


def _flag(field: FieldInfo | None) -> Flag:
    marks = _marks(field.annotation, field.metadata) if field else []
    return next((mark for mark in marks if isinstance(mark, Flag)), Flag(""))


def _marks(hint: Any, metadata: list[Any]) -> list[Any]:
    """What is annotated to a field, or to its type where that may be None."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    inner = [mark for part in parts if get_origin(part) is Annotated for mark in get_args(part)[1:]]
    return [*metadata, *inner]


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _content(value: Any, name: str) -> Any:
    """Of the file that is named, where the text is not the content itself."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return value
    try:
        with Path(value).open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{name} {value} cannot be read: {why}") from error
