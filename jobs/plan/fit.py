"""What will not fit, and why: found by arithmetic, before a card is paid for."""

from collections.abc import Iterator
from dataclasses import dataclass

from actors.profile import Profile
from jobs.plan.hardware import USABLE_MEMORY, WORKSPACE_BYTES, Card
from jobs.plan.load import PROMPT_TOKENS
from jobs.plan.scan import Scan
from pipeline.config import GIB, MIB, ModelConfig
from pipeline.model.check import share_of

TOWER_BYTES = 2  # of a weight


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMemory:
    """Bytes on one card that a rank and its encoder share."""

    weights: float
    kv: float
    encoder: float
    usable: float

    @property
    def together(self) -> float:
        return self.weights + self.kv + self.encoder + WORKSPACE_BYTES

    @property
    def is_enough(self) -> bool:
        return self.together <= self.usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A sentence: what, how much, and what there is. stops: nothing runs with it."""

    text: str
    stops: bool = False


def card_memory(config: ModelConfig, profile: Profile, card: Card, *, vision: int) -> CardMemory:
    """Of the first rank, which has the largest share. vision: parameters of the tower."""
    pool = profile.decoders
    share = share_of(config, pool.tensor_parallel)
    encoders = -(-profile.encoders.num_actors // (pool.num_replicas * pool.tensor_parallel))
    tower = vision * TOWER_BYTES
    return CardMemory(
        weights=max(share.weight_bytes - tower, 0),
        kv=share.kv_bytes_per_token * pool.kv_tokens,
        encoder=encoders * tower,
        usable=card.memory_gib * GIB * USABLE_MEMORY,
    )


def weight_bytes(profile: Profile, *, vision: int, language: int) -> float:
    """Of all processes of a fleet without cards; each holds its own."""
    element_bytes = {"float32": 4, "bfloat16": 2}[profile.dtype]
    word_bytes = 1 if profile.decoders.int8 else element_bytes
    decoders = profile.decoders.num_replicas * language * word_bytes
    return decoders + profile.encoders.num_actors * vision * element_bytes


def problems(
    scan: Scan,
    config: ModelConfig,
    profile: Profile,
    *,
    card: Card | None,
    vision: int,
    language: int,
    words: float,
    machine_bytes: float,
) -> Iterator[Misfit]:
    """What will not fit. card: None where the profile's device is none, and a machine of so many
    bytes computes. vision, language: parameters.
    """
    pool = profile.decoders
    share = share_of(config, pool.tensor_parallel)
    if share.reason:
        yield Misfit(text=f"{pool.tensor_parallel} ranks: {share.reason}", stops=True)
    elif card is not None:
        memory = card_memory(config, profile, card, vision=vision)
        if not memory.is_enough:
            yield Misfit(text=_too_much(memory, config, profile, card), stops=True)
    elif (weights := weight_bytes(profile, vision=vision, language=language)) > machine_bytes:
        text = (
            f"{weights / GIB:,.1f} GiB of weights, {pool.num_replicas} x decoder and "
            f"{profile.encoders.num_actors} x encoder in {profile.dtype}{', int8' * pool.int8}; "
            f"this machine has {machine_bytes / GIB:.1f} GiB: a smaller model, or cards"
        )
        yield Misfit(text=text, stops=True)
    yield from map(_note, _of_videos(scan, profile, words))


def _of_videos(scan: Scan, profile: Profile, words: float) -> Iterator[str]:
    pool = profile.decoders
    if scan.seen:
        largest = max(each.view_tokens for each in scan.seen) + pool.question_tokens
        if largest > pool.kv_tokens:
            yield (
                f"a window of {largest:,} tokens with its questions is more than kv_tokens "
                f"{pool.kv_tokens:,}: such videos fail with token_budget"
            )
        chunk = max(each.chunk_bytes for each in scan.seen)
        if chunk > profile.video_bytes:
            yield (
                f"a chunk of {chunk / MIB:.0f} MiB is more than video_bytes "
                f"{profile.video_bytes / MIB:.0f} MiB: one at a time is on its way"
            )
    if words + PROMPT_TOKENS > pool.question_tokens:
        yield (
            f"answers of {words:.0f} tokens want more than question_tokens {pool.question_tokens:,}"
        )
    if scan.refused:
        yield f"of {scan.num_sampled} videos some cannot be planned: {scan.refused}"


def _note(text: str) -> Misfit:
    return Misfit(text=text)


def _too_much(memory: CardMemory, config: ModelConfig, profile: Profile, card: Card) -> str:
    return (
        f"{card.name}: {memory.weights / GIB:.1f} GiB of weights a rank, {memory.kv / GIB:.1f} of "
        f"keys and values ({profile.decoders.kv_tokens:,} tokens), {memory.encoder / GIB:.1f} of "
        f"encoders and {WORKSPACE_BYTES / GIB:.1f} of activations are {memory.together / GIB:.1f} "
        f"GiB; {memory.usable / GIB:.1f} can be used: {_remedy(memory, config, profile)}"
    )


def _remedy(memory: CardMemory, config: ModelConfig, profile: Profile) -> str:
    """The smallest change that makes room."""
    pool = profile.decoders
    room = memory.usable - memory.together + memory.kv
    per_token = memory.kv / pool.kv_tokens
    if per_token and room / per_token > 4 * pool.question_tokens:
        return f"kv_tokens {int(room / per_token):,} would fit"
    sizes = [size for size in (2, 4, 8) if size > pool.tensor_parallel]
    for size in sizes:
        shared = share_of(config, size)
        if not shared.reason and shared.weight_bytes + WORKSPACE_BYTES < 0.8 * memory.usable:
            return f"tensor_parallel {size} would"
    return "no split of up to 8 ranks has room: a larger card is needed"
