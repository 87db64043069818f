"""A job as people write it: one YAML file, or the flags of the same names. Every field is here."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
Texts = tuple[str, ...]


class Job(BaseModel):
    """What to do with which videos, and with how much of which machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(
        description="A folder, a pattern (clips/**/*.mp4), s3://bucket/prefix, one video, or a "
        "manifest (.txt, .csv, .jsonl, .parquet)."
    )
    out: str = Field(description="Where rows go: a folder or s3://bucket/prefix, one job each.")
    model: Path | None = Field(
        default=None, description="A Qwen2-VL folder; the bundled vidray-demo if not given."
    )

    caption: bool = Field(default=True, description="Describe each video.")
    ask: Texts = Field(default=(), description="A question; may be repeated.")
    choices: str | None = Field(
        default=None, description="The answers allowed, separated by commas."
    )
    answer_schema: Path | None = Field(
        default=None, alias="schema", description="A JSON schema that answers must follow."
    )
    ground: Texts = Field(default=(), description="A thing to find; may be repeated.")
    at: tuple[float, ...] = Field(
        default=(), description="Second to look at for --ground; may be repeated."
    )
    fps: float = Field(default=2.0, description="Frames per second shown to the model.")
    preset: str = Field(default="paper", description="Whose sampling and resizing rules.")
    long: Literal["fit", "windows"] = Field(
        default="fit", description="Of a long video: fewer frames (fit), or several windows."
    )
    overlap: float = Field(
        default=0.0, description="Seconds that windows share, with --long windows."
    )
    start: float | None = Field(
        default=None, description="First second, where a manifest says nothing else."
    )
    end: float | None = Field(default=None, description="Second to stop before, likewise.")
    max_new_tokens: int = Field(default=256, description="Longest answer.")
    temperature: float | None = Field(
        default=None, description="0 is greedy; the checkpoint's own if not given."
    )
    seed: int = Field(default=0, description="For a temperature above 0.")
    reader: Literal["pyav", "decord"] = Field(default="pyav", description="What decodes.")

    int8: bool = Field(
        default=False, description="Round the language model: faster on a CPU, not exact."
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
        description="Rows of one output file; what was not whole in a crash is made anew.",
    )
    profile: Path | None = Field(
        default=None, description="How much of a machine or a fleet to take; see deploy/profiles."
    )
    address: str | None = Field(
        default=None,
        description="A running Ray cluster (auto, or host:port); else Ray starts here.",
    )
    in_process: bool = Field(
        default=False, description="Work in this process, without Ray, one video at a time."
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


FIELDS = {field.alias or name: field for name, field in Job.model_fields.items()}


def make_job(file: Path | None, typed: Mapping[str, Any]) -> Job:
    """A job of a file's fields and of flags, which win. ConfigError names the first wrong field."""
    written = {} if file is None else _read(file)
    try:
        return Job.model_validate({**written, **typed})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = f"{file}: " if file is not None and name not in typed else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}{_unknown(name)}") from error
        if first["type"] == "missing":
            raise ConfigError(f"{where}{name} is missing: {FIELDS[name].description}") from error
        raise ConfigError(f"{where}{name}: {first['msg']}, got {first['input']!r}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = yaml.safe_load(stream.read(MAX_FILE_BYTES))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{file}: a job file is a mapping of field names to values")
    return content


def _unknown(name: str) -> str:
    near = get_close_matches(name, FIELDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FIELDS)}"
    return f"there is no field {name!r}; {hint}"
