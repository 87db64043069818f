"""The flags of a job are its fields: what a job file can say a command line can say, and so on."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from jobs.batch.job import FIELDS, make_job

POSITIONAL = {"source": "SRC", "out": "OUT"}


def takes_job(command: Callable[..., int]) -> Callable[..., int]:
    """Give `command(job, ...)` an argument or a flag for each field of Job, and --job for a file.

    Its other parameters stay flags of its own.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

    def run(**given: Any) -> int:
        flags = {name: given.pop(name) for name in FIELDS}
        file = given.pop("job")
        return command(
            make_job(file, {k: v for k, v in flags.items() if v not in (None, [])}), **given
        )

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(_parameter(name, field) for name, field in FIELDS.items()), _JOB_FILE, *named]
    )
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def flags_of(fields: Mapping[str, Any]) -> list[str]:
    """Fields as they are typed: the way back."""
    arguments = ["--"] + [str(fields[name]) for name in POSITIONAL]
    flags: list[str] = []
    for name, value in fields.items():
        flag = name.replace("_", "-")
        if name in POSITIONAL or value is None:
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            each = value if isinstance(value, list) else [value]
            flags += [f"--{flag}={one}" for one in each]
    return flags + arguments


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Not given is None: the default is the job's, and a job file stands in between."""
    what, metavar = typer.Option, None
    if name in POSITIONAL:
        what, metavar = typer.Argument, POSITIONAL[name]
    info = what(help=_help(field), show_default=False, metavar=metavar)
    hint = Annotated[_flag_type(field.annotation) | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _flag_type(hint: Any) -> Any:
    """What typer knows: no None, and lists for tuples."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return list[get_args(hint)[0]] if get_origin(hint) is tuple else hint  # type: ignore[misc]


def _help(field: FieldInfo) -> str:
    says_itself = field.is_required() or field.default in (None, ()) or field.annotation is bool
    return f"{field.description}" + ("" if says_itself else f" ({field.default} if not given)")


_JOB_FILE = inspect.Parameter(
    "job",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(help="A YAML file with fields named like these flags; flags win."),
    ],
)
