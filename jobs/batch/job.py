"""A job as people write it: one YAML file, or the flags of the same names. Every field is here."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from jobs.flags import build, fields_of, flag_of, flattened
from jobs.serving import ServingOptions
from pipeline.errors import ConfigError
from pipeline.tasks.options import TaskOptions, Texts

MAX_FILE_BYTES = 1 << 20


class Job(TaskOptions, ServingOptions):
    """What to do with which videos, and with how much of which machine."""

    source: str = Field(
        description="A folder, a pattern (clips/**/*.mp4), s3://bucket/prefix, one video, or a "
        "manifest (.txt, .csv, .tsv, .jsonl, .parquet)."
    )
    out: str = Field(description="Where rows go: a folder or s3://bucket/prefix, one job each.")
    model: Path | None = Field(
        default=None,
        description="A Qwen2-VL folder; vidray-demo, the bundled one, only when named.",
    )

    limit: int | None = Field(default=None, ge=1, description="Only the first so many videos.")
    suffix: Texts = Field(
        default=(),
        description="End of file names to take from a listing; may be repeated. Those of videos "
        "if not given.",
    )
    min_bytes: int = Field(default=0, ge=0, description="Leave smaller files of a listing out.")
    max_bytes: int | None = Field(
        default=None, ge=0, description="Leave larger files of a listing out."
    )

    job_id: str | None = Field(
        default=None, description="A name for the job; made from its content if not given."
    )
    videos_per_part: int = Field(
        default=64,
        ge=1,
        le=32_768,
        description="Rows of one output file; what was not whole in a crash is made anew.",
    )
    grace: float = Field(
        default=30.0,
        ge=0,
        description="Seconds for parts under way to be finished after SIGTERM or Ctrl-C; the "
        "second one stops at once.",
    )
    copies: Path | None = Field(
        default=None,
        description="Folder for copies of S3 videos while they are read; on several machines one "
        "that all of them share. The system's temporary folder if not given.",
    )


FIELDS = fields_of(Job)


def make_job(file: Path | None, typed: Mapping[str, Any]) -> Job:
    """A job of a file's fields and of flags, which win. ConfigError names the first wrong field.

    A field is named as it was written: as a flag, or as the file spells it.
    """
    if file is None:
        return build(Job, typed)
    spelled = _read(file)
    written = {name: value for name, (_, value) in spelled.items()}

    def spell(name: str) -> str:
        return flag_of(name) if name in typed else spelled.get(name, (name, None))[0]

    try:
        return build(Job, {**written, **typed}, spell)
    except ConfigError as error:
        is_typed = str(error).startswith("--")
        raise error if is_typed else ConfigError(f"{file}: {error}") from error


def _read(file: Path) -> dict[str, tuple[str, Any]]:
    """By the field's name: how the file spells it, with dashes or underscores, and its value."""
    try:
        with file.open("rb") as stream:
            content = yaml.safe_load(stream.read(MAX_FILE_BYTES))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{file}: a job file is a mapping of field names to values")
    fields: dict[str, tuple[str, Any]] = {}
    for spelled, value in flattened(Job, content).items():
        name = spelled.replace("-", "_")
        if name not in FIELDS:
            raise ConfigError(f"{file}: {_unknown(spelled)}")
        if name in fields:
            raise ConfigError(f"{file}: {fields[name][0]} and {spelled} are the same field")
        fields[name] = (spelled, value)
    return fields


def _unknown(spelled: str) -> str:
    near = get_close_matches(spelled.replace("-", "_"), FIELDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FIELDS)}"
    return f"there is no field {spelled!r}; {hint}"
