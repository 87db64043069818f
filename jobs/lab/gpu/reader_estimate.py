"""How many readers keep a GPU busy: arithmetic, from what was measured and what a card can do.

A clip costs the GPU its tower, its prefill and its words, and costs cores its decoding and
resizing. Whoever has less to do waits for the other. Efficiencies are guesses until `make
gpu-check` has measured the card's.
"""

from dataclasses import dataclass

from jobs.plan.hardware import Card
from jobs.plan.operations import language_weights, prefill_flops, tower_flops
from pipeline.config import GIB, ModelConfig
from pipeline.model.check import share_of
from pipeline.types import Grid

BYTES = 2  # of a weight in bfloat16
BUSY = 0.9  # the share of time that a GPU is to have work
MEMORY = 0.9  # of a card's, that weights, keys and values may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What one clip is: its grid, its words, and how many are answered in one batch."""

    grid: Grid
    num_words: int = 128
    num_questions: int = 1
    batch: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderEstimate:
    """Seconds of a replica of `num_cards` for one clip, by stage, and of a core. rank_bytes: of
    weights, keys and values on each card. has_room: whether the card has those.
    """

    num_cards: int
    rank_bytes: int
    has_room: bool
    tower_s: float
    prefill_s: float
    words_s: float
    reading_s: float  # of one core

    @property
    def gpu_s(self) -> float:
        return self.tower_s + self.prefill_s + self.words_s

    @property
    def clips_per_minute(self) -> float:
        return 60 / self.gpu_s

    @property
    def num_cores(self) -> float:
        """That keep the replica busy, of which readers take one each."""
        return BUSY * self.reading_s / self.gpu_s


def estimate(
    config: ModelConfig, clips: Clips, card: Card, *, num_cards: int, reading_s: float
) -> ReaderEstimate:
    """Tower and language model are spread over all cards; reading_s: of one core, measured."""
    flops, rate = card.flops_per_s * num_cards, card.bytes_per_s * num_cards
    num_tokens = clips.grid.num_tokens
    step_s = (language_weights(config) * BYTES + clips.batch * _kv_bytes(config, num_tokens)) / rate
    num_steps = clips.num_words * clips.num_questions / clips.batch
    share = share_of(config, num_cards)
    rank_bytes = share.weight_bytes + share.kv_bytes_per_token * clips.batch * num_tokens
    return ReaderEstimate(
        num_cards=num_cards,
        rank_bytes=rank_bytes,
        has_room=rank_bytes <= MEMORY * card.memory_gib * GIB,
        tower_s=tower_flops(config, clips.grid) / flops,
        prefill_s=prefill_flops(config, num_tokens) / flops,
        words_s=step_s * num_steps,
        reading_s=reading_s,
    )


def _kv_bytes(config: ModelConfig, num_tokens: int) -> int:
    return config.kv_bytes_per_token(element_bytes=BYTES) * num_tokens
