"""How fast this server has been, and so how long a plan may take."""

from dataclasses import dataclass, field

from pipeline.events import Moved
from pipeline.types import SamplingPlan

WEIGHT = 0.2  # of the latest chunk
STAGES = {"read": "decode_s", "encode": "encode_s", "prefill": "prefill_s"}


@dataclass(slots=True)
class Rates:
    """Seconds per thousand video tokens of each stage, the latest weighing most."""

    seconds: dict[str, float] = field(default_factory=dict)

    def hear(self, event: Moved, plan: SamplingPlan) -> None:
        num_tokens = event.num_steps * plan.windows[event.window_index].grid.tokens_per_step
        took_s = event.span.duration_s / num_tokens * 1_000
        before_s = self.seconds.get(event.stage, took_s)
        self.seconds[event.stage] = before_s + WEIGHT * (took_s - before_s)

    def forecast(self, plan: SamplingPlan) -> dict[str, float | None]:
        """Of a first question; None before the first video. Stages overlap: the slowest counts."""
        thousands = plan.num_tokens / 1_000
        took_s = {
            name: self.seconds[stage] * thousands
            for stage, name in STAGES.items()
            if stage in self.seconds
        }
        whole_s = max(took_s.values()) if len(took_s) == len(STAGES) else None
        return {"first_word_s": whole_s, **{name: took_s.get(name) for name in STAGES.values()}}
