"""What to do with each video: caption it, answer questions, find things."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

from pipeline.config import Sampling
from pipeline.engine.constraint import Constraint
from pipeline.errors import BadInput, FailureCode
from pipeline.model.tokenizer import require_text

MAX_REQUESTS = 1024  # of one video: questions, and queries times their moments
CAPTION_VIDEO = "Describe this video."
CAPTION_IMAGE = "Describe this image."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question, and what its answer is held to."""

    question: str
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        _require_words(self.question)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Something to find on the frames shown at times_s; without a time, half-way through."""

    query: str
    times_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_words(self.query)
        for time_s in self.times_s:
            if not math.isfinite(time_s) or time_s < 0:
                detail = f"a time must be finite and not negative, got {time_s}"
                raise BadInput(FailureCode.BAD_PROMPT, detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Everything asked of one video. caption: its prompt, "" for the default one, None for none.

    Raises BadInput (BAD_PROMPT, PROMPT_TOO_LONG) for text no model should see.
    """

    caption: str | None = ""
    asks: tuple[Ask, ...] = ()
    grounds: tuple[Ground, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        require_text(self.caption or "")
        if not 1 <= self.num_requests <= MAX_REQUESTS:
            detail = f"{self.num_requests} things asked of one video; 1 to {MAX_REQUESTS} are taken"
            raise BadInput(FailureCode.BAD_PROMPT, detail)

    @property
    def num_requests(self) -> int:
        moments = sum(len(ground.times_s) or 1 for ground in self.grounds)
        return (self.caption is not None) + len(self.asks) + moments

    @property
    def digest(self) -> str:
        """Sixteen hex digits over every field: equal tasks, equal digest, on every machine."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def caption_prompt(self, *, is_still: bool) -> str | None:
        """The words that ask for a caption; None when none is wanted."""
        if self.caption is None or self.caption.strip():
            return self.caption
        return CAPTION_IMAGE if is_still else CAPTION_VIDEO


def _require_words(text: str) -> None:
    require_text(text)
    if not text.strip():
        raise BadInput(FailureCode.BAD_PROMPT, "a question needs words")
