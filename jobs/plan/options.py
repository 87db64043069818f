"""What `vidray plan` is told: which videos, asked what, on what hardware, at what price."""

from typing import Annotated

from pydantic import Field

from jobs.batch.job import VideoSelection
from jobs.plan.hardware import CARDS
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.tasks.options import Flag

POSITIONAL = {"source": "SRC"}
NAMES = ", ".join(name.lower() for name in SIZES)


class Outlook(VideoSelection):
    """A job to come, and where it may run."""

    model: Annotated[str | None, Flag("2b|7b|72b|PATH")] = Field(  # type: ignore[assignment]
        default=None,
        description=f"A Qwen2-VL folder, or a published size that need not be here: {NAMES}; "
        "vidray-demo, the bundled one, only when named.",
    )
    card: str = Field(
        default="H100-80",
        description=f"Of a GPU profile: {', '.join(card.name for card in CARDS)}.",
    )
    fleets: int = Field(
        default=1, ge=1, description="So many drivers, each with a fleet of this profile."
    )
    gpus: int | None = Field(
        default=None, ge=1, description="Instead of fleets: as many as so many cards have room for."
    )
    price_gpu_hour: float | None = Field(default=None, ge=0, description="Of one card.")
    words: float | None = Field(
        default=None,
        gt=0,
        description="Tokens that an answer takes on average; if not given, what --calibrate found, "
        "or a quarter of --max-new-tokens.",
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        description="Headers that are opened, at most; 500 if not given, or 8 in S3, where a video "
        "is read whole for it.",
    )
    calibrate: bool = Field(
        default=False, description="Measure this machine first, with the model: a minute."
    )
