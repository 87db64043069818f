"""What people want to know of their videos, as typed or as written in a job file."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, Constraint, JsonSchema
from pipeline.errors import BadInput, ConfigError
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.reader import Reader

MAX_SCHEMA_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The same for every video. ConfigError for options that do not go together."""

    caption: bool = True
    questions: tuple[str, ...] = ()
    choices: str | None = None
    schema: Path | None = None
    queries: tuple[str, ...] = ()
    times_s: tuple[float, ...] = ()
    fps: float = 2.0
    preset: str = "paper"
    long: Literal["fit", "windows"] = "fit"
    overlap_s: float = 0.0
    start_s: float | None = None
    end_s: float | None = None
    max_new_tokens: int = 256
    temperature: float | None = None
    seed: int = 0
    reader: Reader = "pyav"

    def __post_init__(self) -> None:
        require(
            {
                "--at needs --ground": bool(self.queries) or not self.times_s,
                "--choices and --schema need --ask": bool(self.questions)
                or not (self.choices or self.schema),
                "--choices and --schema exclude each other": not (self.choices and self.schema),
                "nothing to do: --no-caption needs --ask or --ground": self.caption
                or bool(self.questions or self.queries),
                "--start must be 0 or more and before --end": 0.0
                <= (self.start_s or 0.0)
                < (math.inf if self.end_s is None else self.end_s),
            }
        )

    @property
    def options(self) -> PlanOptions:
        """ConfigError if Qwen2-VL does not sample so. A job's plan keeps the limit by number."""
        options = PlanOptions(
            preset=self.preset,
            fps=self.fps,
            long=self.long,
            overlap_s=self.overlap_s,
            start_s=self.start_s,
            end_s=self.end_s,
            max_window_tokens=QWEN2_VL.max_window_tokens,
        )
        QWEN2_VL.check(options)
        return options

    def sampling(self, own: Sampling) -> Sampling:
        """The checkpoint's own way to sample, unless a temperature was asked for."""
        chosen = replace(own, max_new_tokens=self.max_new_tokens, seed=self.seed)
        if self.temperature is None:
            return chosen
        return replace(chosen, temperature=self.temperature, top_k=0, top_p=1.0)

    def tasks(self, sampling: Sampling) -> Tasks:
        """Everything to ask; ConfigError for what no model and no video could make right."""
        try:
            constraint = self._constraint()
            return Tasks(
                caption="" if self.caption else None,
                asks=tuple(Ask(question=text, constraint=constraint) for text in self.questions),
                grounds=tuple(Ground(query=text, times_s=self.times_s) for text in self.queries),
                sampling=sampling,
            )
        except BadInput as error:
            raise ConfigError(error.detail) from error

    def _constraint(self) -> Constraint | None:
        if self.choices:
            return Choices(tuple(choice.strip() for choice in self.choices.split(",")))
        if self.schema:
            return JsonSchema(_read_schema(self.schema))
        return None


def require(rules: dict[str, bool]) -> None:
    """ConfigError with the first rule that does not hold."""
    for rule, holds in rules.items():
        if not holds:
            raise ConfigError(rule)


def _read_schema(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SCHEMA_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--schema {path} cannot be read: {error}") from error
