"""What people want to know of their videos: one model behind flags, job files and manifests.

An option is one field: its type and bounds, what it does, its default. A flag of its name, its
place in a job file, its line in --help and docs/configuration.md come from it, and a field named
as one of Sampling or PlanOptions reaches those (resolve.py).
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.errors import BadInput
from pipeline.families.qwen2_vl.sampling import PRESET_NAMES, QWEN2_VL
from pipeline.settings import Settings, plain


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is typed, where its type does not say. once: a list in one text, not repeated.

    is_file: a text that does not begin as JSON names the file that holds it.
    """

    metavar: str
    once: bool = False
    is_file: bool = False


def _several(value: object) -> object:
    """One alone is a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


def separated(value: object) -> object:
    """A list, as one text: separated by commas, or JSON where a comma belongs to a choice."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not a JSON list: {error}") from error
    return [part.strip() for part in value.split(",")]


def _as_json(value: object) -> object:
    """A schema written as an object is the text of it."""
    return json.dumps(value) if isinstance(value, dict) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]
Seconds = Annotated[float, Flag("SECONDS")]


class TaskOptions(Settings):
    """What to ask of each video, and how it is shown to the model."""

    caption: bool = Field(default=True, description="Describe each video.")
    ask: Texts = Field(default=(), description="A question; may be repeated.")
    choices: Annotated[
        tuple[str, ...] | None, BeforeValidator(separated), Flag("A,B,...", once=True)
    ] = Field(default=None, description="The answers allowed, separated by commas.")
    answer_schema: Annotated[str | None, BeforeValidator(_as_json), Flag("FILE", is_file=True)] = (
        Field(
            default=None,
            alias="schema",
            description="A JSON schema that answers must follow: a file, or the schema itself.",
        )
    )
    ground: Texts = Field(default=(), description="A thing to find; may be repeated.")
    at: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_several), Flag("SECONDS")
    ] = Field(
        default=(),
        description="Where to look for what --ground names; may be repeated. "
        "Half-way through if not given.",
    )
    fps: float = Field(default=2.0, gt=0, description="Frames per second shown to the model.")
    preset: str = Field(default="paper", description="Whose sampling and resizing rules.")
    long: Literal["fit", "windows"] = Field(
        default="fit", description="Of a long video: fewer frames (fit), or several windows."
    )
    overlap: Seconds = Field(
        default=0.0, ge=0, description="What windows share, with --long windows."
    )
    start: Seconds | None = Field(
        default=None, ge=0, description="First second to watch; a manifest's own wins."
    )
    end: Seconds | None = Field(default=None, gt=0, description="Second to stop before; likewise.")
    max_new_tokens: int = Field(default=256, ge=1, le=32_768, description="Longest answer.")
    temperature: float | None = Field(
        default=None, ge=0, le=10, description="0 is greedy; the checkpoint's own if not given."
    )
    seed: int = Field(default=0, description="For a temperature above 0.")

    @field_validator("choices", "answer_schema")
    @classmethod
    def _can_be_held_to(cls, said: Any) -> Any:
        if said:
            from pipeline.engine import constraint as kinds  # noqa: PLC0415 - of no use to --help

            try:
                kind = kinds.JsonSchema if isinstance(said, str) else kinds.Choices
                kinds.require_usable(kind(said))
            except BadInput as error:
                raise ValueError(error.detail) from error
        return said

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        most_s = QWEN2_VL.max_window_frames / 2 / self.fps
        rules: dict[str, Any] = {
            "{at} needs {ground}": self.ground or not self.at,
            "{choices} needs {ask}": self.ask or not self.choices,
            "{schema} needs {ask}": self.ask or not self.answer_schema,
            "{choices} and {schema} exclude each other": not (self.choices and self.answer_schema),
            "nothing to do: without {caption} there must be {ask} or {ground}": self.caption
            or self.ask
            or self.ground,
            f"{{start}} must be before {{end}}, got {plain(self.start)} and {plain(self.end)}": (
                self.start is None or self.end is None or self.start < self.end
            ),
            "{overlap} needs {long} windows": self.overlap == 0 or self.long == "windows",
            f"{{preset}} must be one of {', '.join(PRESET_NAMES)}": self.preset in PRESET_NAMES,
            "{long} windows needs {preset} paper": self.long == "fit" or self.preset == "paper",
            f"{{overlap}} must be at most half a window, {most_s:g} s at {self.fps:g} frames per "
            f"second, got {plain(self.overlap)}": self.overlap <= most_s,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(rule)
        return self
