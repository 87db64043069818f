"""A job as people write it: one YAML file, or the flags of the same names. Every field is here."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from jobs.flags import build, fields_of, flag_of, flattened
from jobs.progress import ProgressOptions
from jobs.serving import ServingOptions
from pipeline.errors import ConfigError, FailureCode
from pipeline.settings import load_yaml
from pipeline.tasks.options import Flag, Seconds, TaskOptions, Texts, separated

MAX_FILE_BYTES = 1 << 20
ALL = "all"  # codes
POSITIONAL = {"source": "SRC", "out": "OUT"}  # fields that are typed as arguments, without a name


def _known(codes: tuple[str, ...]) -> tuple[str, ...]:
    for code in codes:
        if code not in (ALL, *FailureCode):
            near = get_close_matches(code, FailureCode, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FailureCode)}"
            raise ValueError(f"{code!r} is no failure code; {hint}")
    return codes


Codes = Annotated[
    tuple[str, ...],
    BeforeValidator(separated),
    AfterValidator(_known),
    Flag("CODES", once=True),
]


class VideoSelection(TaskOptions, ServingOptions):
    """Which videos, what is asked of them, and with how much of which machine."""

    source: str = Field(
        description="A folder, a pattern (clips/**/*.mp4), s3://bucket/prefix, one video, or a "
        "manifest (.txt, .csv, .tsv, .jsonl, .json, .parquet)."
    )
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
    hidden: bool = Field(
        default=False,
        description="Take from a listing what begins with a dot too, files and folders.",
    )
    link_root: Texts = Field(
        default=(),
        description="A folder that symbolic links to videos may lead to; may be repeated. Any if "
        "not given.",
    )
    copies: Path | None = Field(
        default=None,
        description="Folder for copies of S3 videos while they are read; on several machines one "
        "that all of them share. The system's temporary folder if not given.",
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.max_bytes is not None and self.max_bytes < self.min_bytes:
            raise ValueError("{min_bytes} must be at most {max_bytes}")
        return self


class Job(ProgressOptions, VideoSelection):
    """What to do with which videos, and with how much of which machine."""

    out: str = Field(description="Where rows go: a folder or s3://bucket/prefix, one job each.")

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
        description="Seconds from SIGTERM or Ctrl-C until the process is gone, 5 if less; parts "
        "under way have all but the last 5 to be finished. The second signal stops at once.",
    )
    patience: Seconds = Field(
        default=600.0,
        gt=0,
        description="For how long a store or a fleet may fail every video before the job stops, to "
        "be gone on with; until then it is waited for.",
    )
    give_up: Codes = Field(
        default=(),
        description="Failure codes to take as rows at once where the store or the fleet may be to "
        "blame, separated by commas; or all.",
    )
    retry: Codes = Field(
        default=(),
        description="Make the videos of a finished job again that failed with these codes, "
        "separated by commas; or all.",
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.job_id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.job_id):
            raise ValueError("{job_id} must be 1 to 64 letters, digits, '.', '_' or '-'")
        return self

    @property
    def codes_given_up(self) -> frozenset[str]:
        return chosen(self.give_up)


def chosen(codes: Collection[str]) -> frozenset[str]:
    """The codes themselves, where "all" is among them all there are."""
    return frozenset(FailureCode if ALL in codes else codes)


FIELDS = fields_of(Job)


def make_job(file: Path | None, typed: Mapping[str, Any]) -> Job:
    """A job of a file's fields and of flags, which win. ConfigError names the first wrong field.

    A field is named as it was written: as --help has it, or as the file spells it.
    """
    if file is None:
        return build(Job, typed, typed_as)
    try:
        spelled = fields_written(read_yaml(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    written = {name: value for name, (_, value) in spelled.items()}

    def spell(name: str) -> str:
        return typed_as(name) if name in typed else spelled.get(name, (name, None))[0]

    try:
        return build(Job, {**written, **typed}, spell)
    except ConfigError as error:
        is_typed = str(error).startswith(("--", *POSITIONAL.values()))
        raise error if is_typed else ConfigError(f"{file}: {error}") from error


def typed_as(name: str) -> str:
    """A field as it stands in --help."""
    return POSITIONAL.get(name) or flag_of(name)


def read_yaml(file: Path) -> dict[str, Any]:
    """A mapping of names to values. ConfigError for any other file, without its name."""
    try:
        with file.open("rb") as stream:
            content = load_yaml(stream.read(MAX_FILE_BYTES))
    except OSError as error:
        raise ConfigError(f"{error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(re.sub(r'\s*in "<byte string>"', "", str(error)).split())
        raise ConfigError(f"not YAML: {what}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError("not a mapping of field names to values")
    return content


def fields_written(content: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """By the field's name: how it is spelled, with dashes or underscores, and its value."""
    fields: dict[str, tuple[str, Any]] = {}
    for spelled, value in flattened(Job, content).items():
        name = spelled.replace("-", "_")
        if name not in FIELDS:
            raise ConfigError(no_field(spelled, FIELDS))
        if name in fields:
            raise ConfigError(f"{fields[name][0]} and {spelled} are the same field")
        fields[name] = (spelled, value)
    return fields


def no_field(spelled: str, fields: Collection[str]) -> str:
    """What is said of a name that is none of these."""
    near = get_close_matches(spelled.replace("-", "_"), fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
    return f"there is no field {spelled!r}; {hint}"
