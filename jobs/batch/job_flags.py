"""The flags of a job are its fields: what a job file can say a command line can say, and so on."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.batch.job import POSITIONAL, Job, make_job
from jobs.flags import arguments_of, flags_for, parameters_of, signed, typed


def takes_job(command: Callable[..., int]) -> Callable[..., int]:
    """Give `command(job, ...)` an argument or a flag for each field of Job, and --job for a file.

    Its other parameters stay flags of its own.
    """

    def run(**given: Any) -> int:
        fields = typed(Job, given)
        return command(make_job(given.pop("job"), fields), **given)

    own = parameters_of(command)[1:]
    return signed(run, command, [*flags_for(Job, POSITIONAL), _JOB_FILE, *own])


def flags_of(fields: Mapping[str, Any]) -> list[str]:
    """A job's fields as they are typed: the way back."""
    return arguments_of(Job, fields, POSITIONAL)


def typed_flags(job: Job) -> list[str]:
    """What a job was told, as it is typed."""
    return flags_of(job.model_dump(mode="json", by_alias=True, exclude_unset=True))


_JOB_FILE = inspect.Parameter(
    "job",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(help="A YAML file with fields named like these flags; flags win."),
    ],
)
