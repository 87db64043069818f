"""A rank that takes time and computes nothing: admission is the real one, tokens are counted."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.plan.hardware import Cost
from jobs.plan.operations import prefill_flops
from pipeline.config import EngineLimits, ModelConfig
from pipeline.engine.admission import Admission
from pipeline.engine.commands import (
    BeginGeneration,
    CloseStream,
    Commands,
    Control,
    EndGeneration,
    OpenStream,
    Report,
    Step,
)
from pipeline.engine.ids import StreamId
from pipeline.engine.question import Completion
from pipeline.errors import Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Seconds of a step. chunk_s: of each chunk in it, word_s: of each answer that goes on in it,
    step_s: of a step, whatever is in it; floor_s: of reading the weights once, unless the
    operations of its chunks take longer.
    """

    flop_s: float
    step_s: float = 0.0
    floor_s: float = 0.0
    chunk_s: float = 0.0
    word_s: float = 0.0
    kv_token_s: float = 0.0

    @classmethod
    def of(cls, cost: Cost) -> "StepCost":
        """As calibrated on a machine, where each cause was measured by itself."""
        return cls(flop_s=cost.work_s, chunk_s=cost.chunk_s, word_s=cost.word_s)


@dataclass(slots=True)
class _HeldStream:
    num_reserved: int
    num_cached: int = 0
    words: dict[int, int] = field(default_factory=dict)  # left, by generation


class SimulatedRank:
    """Takes the place of engine.rank.Rank. words: that an answer takes."""

    def __init__(
        self,
        config: ModelConfig,
        limits: EngineLimits,
        cost: StepCost,
        *,
        words: int,
        spend: Callable[[float], None],
    ) -> None:
        self.admission = Admission(limits)
        self._config, self._cost, self._words, self._spend = config, cost, words, spend
        self._held: dict[StreamId, _HeldStream] = {}
        self.num_words = 0

    @property
    def streams(self) -> tuple[StreamId, ...]:
        return tuple(self._held)

    def control(self, command: Control) -> None:
        match command:
            case OpenStream(stream, media):
                self._held[stream] = _HeldStream(self.admission.reserve(media))
            case BeginGeneration(generation, _, _):
                if generation.stream not in self._held:
                    raise Transient("no such stream")
                self._held[generation.stream].words[generation.number] = self._words
            case EndGeneration(generation):
                if generation.stream in self._held:
                    self._held[generation.stream].words.pop(generation.number, None)
            case CloseStream(stream):
                if stream in self._held:
                    self.admission.release(self._held.pop(stream).num_reserved)

    def run(self, commands: Commands) -> Report:
        for command in commands:
            if isinstance(command, Step):
                return self._step(command)
        return Report()

    def _step(self, work: Step) -> Report:
        cost, flops, kv_tokens = self._cost, 0.0, 0
        for stream, chunk in work.prefills:
            held, num_tokens = self._held[stream], chunk.tokens.shape[0]
            flops += prefill_flops(self._config, num_tokens, num_before=held.num_cached)
            held.num_cached += num_tokens
        written = []
        for name in work.generations:
            held = self._held[name.stream]
            kv_tokens += held.num_cached
            held.words[name.number] -= 1
            self.num_words += 1
            is_over = held.words[name.number] <= 0
            if is_over:
                del held.words[name.number]
            completion = Completion(text="so", finish_reason="stop") if is_over else None
            written.append((name, "", completion))
        self._spend(
            cost.step_s
            + max(cost.floor_s, flops * cost.flop_s)
            + cost.chunk_s * len(work.prefills)
            + cost.word_s * len(work.generations)
            + cost.kv_token_s * kv_tokens
        )
        return Report(tuple(written))
