"""Constants of hardware, in one table: what each is, and how it is known.

| figure | how it is known |
|---|---|
| a card's peak, memory rate, memory | vendor's: dense bfloat16, no sparsity, SXM if there is one |
| MATMUL_SHARE, MEMORY_SHARE | assumed: no GPU was at hand; `make gpu-check` prints a card's own |
| STEP_S, BATCH_S | assumed: kernels of a layer launched one by one |
| CORE | measured on two cores of an AMD EPYC with AVX-512 by `vidray plan --calibrate` |
| LOAD_BYTES_PER_S, FETCH_BYTES_PER_S, START_S | assumed |
| a model's operations and bytes | computed from its config.json (operations.py) |

What `--calibrate` measures on a machine takes the place of everything here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.plan.operations import language_weights
from pipeline.config import GIB, ModelConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # help names the cards, and does without torch
    from jobs.plan.load import Load

MATMUL_SHARE = 0.45  # of its peak that a model's matmuls reach
MEMORY_SHARE = 0.6  # of its memory rate that reading weights and keys reaches
STEP_S = 0.004  # of a decoder's step, whatever is in it
BATCH_S = 0.003  # of an encoder's batch, likewise
USABLE_MEMORY = 0.92  # of a card: the driver, the context and the allocator keep the rest
WORKSPACE_BYTES = 2 * GIB  # activations of the largest step, on every rank
LOAD_BYTES_PER_S = 1e9  # of a checkpoint onto a card
FETCH_BYTES_PER_S = 300e6  # of videos out of S3 by one driver, which is one process
START_S = 20.0  # of Ray and its actors, without the checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a GPU can do at most. All of it vendor's figures."""

    name: str
    tflops: float  # dense bfloat16
    memory_gb_per_s: float
    memory_gib: float

    @property
    def flops_per_s(self) -> float:
        """That a model's matmuls reach."""
        return self.tflops * 1e12 * MATMUL_SHARE

    @property
    def bytes_per_s(self) -> float:
        """That reading weights and keys reaches."""
        return self.memory_gb_per_s * 1e9 * MEMORY_SHARE


CARDS = (
    Card(name="A100-80", tflops=312, memory_gb_per_s=2039, memory_gib=80),
    Card(name="A100-40", tflops=312, memory_gb_per_s=1555, memory_gib=40),
    Card(name="H100-80", tflops=989, memory_gb_per_s=3350, memory_gib=80),
    Card(name="H200-141", tflops=989, memory_gb_per_s=4800, memory_gib=141),
    Card(name="L4-24", tflops=121, memory_gb_per_s=300, memory_gib=24),
    Card(name="L40S-48", tflops=362, memory_gb_per_s=864, memory_gib=48),
)


def find_card(name: str) -> Card:
    """By its name, or the part of it before the dash. ConfigError names those there are."""
    wanted = name.casefold()
    for card in CARDS:
        if wanted in (card.name.casefold(), card.name.split("-")[0].casefold()):
            return card
    raise ConfigError(f"no card {name!r}; there are {', '.join(card.name for card in CARDS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of one worker of a stage by what causes them.

    work_s: of one decoded pixel for a reader, of one operation for encoder and decoder.
    """

    video_s: float = 0.0
    chunk_s: float = 0.0
    work_s: float = 0.0
    word_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of every stage. origin: how they are known, for people.

    host: the stream host, a single process. rest: the driver, and Ray's own processes.
    """

    reader: Cost
    encoder: Cost
    decoder: Cost
    host: Cost
    rest: Cost
    origin: str
    step_s: float = 0.0  # from one word of an answer to its next


# Of one core. Encoder and decoder stand in it with vidray-demo, for whoever has not calibrated.
CORE = Costs(
    reader=Cost(video_s=0.023, work_s=2.1e-9),
    encoder=Cost(chunk_s=0.006, work_s=1 / 53e9),
    decoder=Cost(chunk_s=0.011, work_s=1 / 72e9, word_s=0.002),
    host=Cost(video_s=0.0045, chunk_s=0.006, word_s=0.00027),
    rest=Cost(video_s=0.015, word_s=0.0008),
    origin="measured on two cores of an EPYC with vidray-demo, not on this machine: --calibrate",
)


def card_costs(
    config: ModelConfig, card: Card, load: "Load", *, tensor_parallel: int, streams: float
) -> Costs:
    """Costs on cards. A decoder's worker is a replica, an encoder's a card. load: of the archive.

    streams: that a replica has open at once. Words ride along with the chunks of other videos: what
    they cost beyond that are steps of words alone, and reading their keys and values.
    """
    bytes_per_s = card.bytes_per_s * tensor_parallel
    flops_per_s = card.flops_per_s * tensor_parallel
    views, chunks = max(load.views, 1e-9), max(load.chunks, 1e-9)
    weights_s = 2 * language_weights(config) / bytes_per_s
    kv_s = load.kv_tokens / views * config.kv_bytes_per_token() / bytes_per_s
    answers = max(load.answers / views, 1e-9)  # of a view, written at one time
    words = load.words / max(load.answers, 1e-9)  # of an answer
    chunk_s = load.prefill_flops / chunks / flops_per_s
    steps_alone = max(0.0, words / max(streams, 1.0) - chunks / views)  # of a view
    step_s = STEP_S + weights_s
    return Costs(
        reader=CORE.reader,
        encoder=Cost(chunk_s=BATCH_S, work_s=1 / card.flops_per_s),
        decoder=Cost(
            chunk_s=STEP_S + max(0.0, weights_s - chunk_s),
            work_s=1 / flops_per_s,
            word_s=steps_alone * step_s / max(words * answers, 1e-9) + kv_s / answers,
        ),
        host=CORE.host,
        rest=CORE.rest,
        step_s=step_s + chunk_s,
        origin=f"computed from {card.name}'s peak at {MATMUL_SHARE:.0%} and its memory at "
        f"{MEMORY_SHARE:.0%} (assumed); readers and stream host as measured on an EPYC",
    )
