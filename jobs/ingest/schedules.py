"""Schedules as people write them: one YAML file, a schedule under each name."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from jobs.batch.job import Job, fields_written, no_field, read_yaml
from jobs.flags import build
from jobs.ingest.calendar import Calendar, find_zone
from jobs.progress import ProgressOptions
from pipeline.errors import ConfigError
from pipeline.settings import Settings, explain
from pipeline.store import manifest
from pipeline.store.journal import job_prefix, tick_name
from pipeline.store.open import S3_SCHEME
from pipeline.store.sources import require_apart

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")  # so that a job's id has room for its tick
MOST_TICKS = 1_000  # that catch_up may name
OWN = ("source", "out", "job_id", "retry")  # of a job: set by its schedule, or not for one
# Where and how loudly a batch runs: whoever goes on with one does it their way.
RUNNERS = {
    *ProgressOptions.model_fields,
    *("address", "copies", "fleet", "give_up", "grace", "in_process", "patience", "profile"),
}


class Schedule(Settings):
    """When what is new somewhere is turned into rows."""

    name: str
    cron: str = Field(description="Five fields, or @hourly, @daily, @weekly, @monthly, @yearly.")
    zone: str = Field(default="UTC", description="Whose clocks cron speaks of, as Europe/Berlin.")
    source: str = Field(description="A folder, a pattern, or s3://bucket/prefix.")
    out: str = Field(description="Where rows go: a folder or s3://bucket/prefix of this schedule.")
    job: Mapping[str, Any] = Field(
        default={}, description="What a job file may say: model, questions, limits."
    )
    overlap: Literal["skip", "queue"] = Field(
        default="skip",
        description="Of a tick that comes due while max_active batches are under way.",
    )
    max_active: int = Field(default=1, ge=1, description="Batches of it at once.")
    catch_up: Literal["none", "last"] | Annotated[int, Field(ge=1, le=MOST_TICKS)] = Field(
        default="last", description="Of ticks that nobody was there for: how many are run."
    )
    settle_s: float = Field(
        default=10.0,
        ge=0,
        description="A file is whole if size and time of change are equal so long apart.",
    )
    lease_s: float = Field(
        default=900.0,
        gt=0,
        description="Without a sign of life so long, a tick or a batch is gone on with by others.",
    )
    submit: str | None = Field(
        default=None, description="A Ray cluster's Jobs API (http://head:8265) for its batches."
    )
    paused: bool = Field(default=False, description="No tick runs.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a schedule's name has 1 to 40 letters, digits, '.', '_' or '-', got {self.name!r}"
            )
        if self.source.lower().endswith(manifest.SUFFIXES):
            raise ValueError(
                "{source} is a manifest; a schedule lists a folder, a pattern or a prefix"
            )
        if wrong := [name for name in OWN if name in self.job]:
            raise ValueError(f"{{job}} cannot say {wrong[0]}")
        _ = self.calendar
        return self

    @cached_property
    def calendar(self) -> Calendar:
        return Calendar(self.cron, find_zone(self.zone))

    @property
    def is_settling(self) -> bool:
        """Whether what is listed may still be being written; objects of S3 appear whole."""
        return self.settle_s > 0 and not self.source.startswith(S3_SCHEME)

    @property
    def num_caught_up(self) -> int:
        return self.catch_up if isinstance(self.catch_up, int) else 1

    def batch(self, number: int, tick_s: int, said: Mapping[str, Any] | None = None) -> Job:
        """The job of a tick. said: what the tick's own entry says of it, where there is one."""
        own = {name: value for name, value in self.job.items() if said is None or name in RUNNERS}
        kept = {name: value for name, value in (said or {}).items() if name not in RUNNERS}
        place = {
            "source": self.source,
            "out": f"{self.out.rstrip('/')}/{job_prefix(number, tick_s).rstrip('/')}",
            "job_id": f"{self.name}-{tick_name(tick_s)}",
        }
        return build(Job, {**kept, **own, **place}, str)


FIELDS = [name for name in Schedule.model_fields if name != "name"]


def load_schedules(file: Path) -> dict[str, Schedule]:
    """By name. ConfigError says which schedule of which file is wrong, and how."""
    try:
        content = read_yaml(file)
        schedules = {name: _read(name, value) for name, value in content.items()}
        _require_own_outs(schedules)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return schedules


def _require_own_outs(schedules: Mapping[str, Schedule]) -> None:
    if not schedules:
        raise ConfigError("there is no schedule")
    names: dict[str, str] = {}
    for name, schedule in schedules.items():
        if (other := names.setdefault(schedule.out.rstrip("/"), name)) != name:
            raise ConfigError(f"{other} and {name} have the same out; each needs its own")


def find_schedule(file: Path, name: str) -> Schedule:
    schedules = load_schedules(file)
    if name not in schedules:
        raise ConfigError(f"{file} has no schedule {name!r}; there are {', '.join(schedules)}")
    return schedules[name]


def _read(name: str, value: object) -> Schedule:
    try:
        if not isinstance(value, Mapping):
            raise ConfigError("a schedule is a mapping of field names to values")
        fields = {str(field).replace("-", "_"): given for field, given in value.items()}
        if unknown := [str(field) for field in value if str(field).replace("-", "_") not in FIELDS]:
            raise ConfigError(no_field(unknown[0], FIELDS))
        if isinstance(job := fields.get("job"), Mapping):
            written = fields_written({str(field): given for field, given in job.items()})
            fields["job"] = {field: given for field, (_, given) in written.items()}
        schedule = Schedule.model_validate(fields | {"name": name})
        require_apart(schedule.source, schedule.out)
        schedule.batch(1, 0)
    except ValidationError as error:
        raise ConfigError(f"{name}: {explain(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return schedule
