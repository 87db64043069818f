"""Which model does the work, and where: the same flags wherever one is run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.limits import LimitOptions
from pipeline.settings import Settings


class ServingOptions(Settings):
    """A model, and how much of which machine it gets."""

    model: Path | None = Field(
        default=None, description="A Qwen2-VL folder; the bundled vidray-demo if not given."
    )
    reader: Literal["pyav", "decord"] = Field(default="pyav", description="What decodes.")
    int8: bool = Field(
        default=False, description="Round the language model: faster on a CPU, not exact."
    )
    profile: Path | None = Field(
        default=None,
        description="How much of a machine or a fleet to take: a name or a file; "
        "see vidray profile show.",
    )
    address: str | None = Field(
        default=None,
        description="A running Ray cluster (auto, or host:port); else Ray starts here.",
    )
    fleet: str | None = Field(
        default=None,
        description="Share the actors of this name on the cluster: who comes first starts them.",
    )
    in_process: bool = Field(
        default=False, description="Work in this process, without Ray, one video at a time."
    )
    limits: LimitOptions = Field(
        default=LimitOptions(), description="What one video may cost; lower than the profile's."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        elsewhere = (self.address, self.profile, self.fleet)
        if self.in_process and any(each is not None for each in elsewhere):
            raise ValueError("{in_process} excludes {address}, {profile} and {fleet}")
        return self
