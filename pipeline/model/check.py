"""Everything `vidray model check` says about a model folder, as a value.

No weight is read, but for a head that config.json says is tied to the embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import GenerationDefaults, load_generation
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.checkpoint import Inventory, part_of, read_inventory
from pipeline.model.digest import digest
from pipeline.model.head import HEAD, as_stored
from pipeline.model.parallel import TensorParallel
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import NEEDS_VLLM, TOWER, problems_of

PARALLEL_SIZES = (1, 2, 4, 8)
ELEMENT_BYTES = 2  # bfloat16, as Qwen2-VL is published and served
MAX_MISMATCHES = 20
OWN_HEAD = (
    f"{HEAD} differs from the embeddings, though tie_word_embeddings says that they are one: "
    "the file's is used, as by transformers 5"
)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """What one of `size` ranks holds, in bfloat16, or the reason why there can be no such split."""

    size: int
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What a folder holds and everything found wrong with it; what can't be read is None."""

    config: ModelConfig | None
    num_vision_parameters: int
    num_language_parameters: int
    shares: tuple[RankShare, ...]
    generation: GenerationDefaults | None
    tokenizer: Tokenizer | None
    inventory: Inventory | None
    digest: str | None
    problems: tuple[CheckpointError, ...]
    warnings: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        return self.num_vision_parameters + self.num_language_parameters


def check_model(path: Path) -> ModelReport:
    """Inspect a model folder without raising; its config.json alone gives the numbers."""
    problems: list[CheckpointError] = []
    config = _collect(load_config, path, problems)
    tokenizer = _collect(Tokenizer.load, path, problems) if config else None
    generation = _collect(load_generation, path, problems) if config else None
    inventory = _collect(read_inventory, path, problems)
    warnings: list[str] = []
    if config and inventory:
        found = [*islice(problems_of(config, inventory), MAX_MISMATCHES)]
        problems += found
        if not found and (stored := as_stored(config, inventory)) != config:
            config = stored
            warnings.append(OWN_HEAD)
    if config and config.quantization:
        warnings.append(f"{config.quantization}: {NEEDS_VLLM}")
    whole = _on_meta(config, TensorParallel()) if config else None
    return ModelReport(
        config=config,
        num_vision_parameters=_count(whole.vision) if whole else 0,
        num_language_parameters=_count(whole.language) if whole else 0,
        shares=_shares(config, inventory) if config else (),
        generation=generation,
        tokenizer=tokenizer,
        inventory=inventory,
        digest=_collect(digest, path, problems) if inventory else None,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def num_parameters(config: ModelConfig) -> tuple[int, int]:
    """Of the vision tower and of the language model; no checkpoint is needed."""
    whole = _on_meta(config, TensorParallel())
    return _count(whole.vision), _count(whole.language)


def share_of(config: ModelConfig, size: int) -> RankShare:
    """The largest share of a rank: the first one's, the others' vocabulary may be shorter."""
    try:
        model = _on_meta(config, TensorParallel(0, size))
    except ConfigError as error:
        return RankShare(size=size, reason=str(error))
    num_kv_heads = -(-config.num_kv_heads // size)  # at least one: ranks may hold copies
    return RankShare(
        size=size,
        weight_bytes=ELEMENT_BYTES * _count(model),
        kv_bytes_per_token=config.kv_bytes_per_token() * num_kv_heads // config.num_kv_heads,
    )


def _shares(config: ModelConfig, inventory: Inventory | None) -> tuple[RankShare, ...]:
    shares = tuple(share_of(config, size) for size in PARALLEL_SIZES)
    if config.quantization is None:
        return shares
    if inventory is None:
        return ()
    # As stored, in equal parts: the tower is whole in the encoder, and counted to every rank.
    tower = part_of(inventory, TOWER).size_bytes
    rest = inventory.size_bytes - tower
    return tuple(
        share if share.reason else replace(share, weight_bytes=rest // share.size + tower)
        for share in shares
    )


def _on_meta(config: ModelConfig, parallel: TensorParallel) -> Qwen2VL:
    with torch.device("meta"):
        return Qwen2VL(config, parallel)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _collect(
    read: Callable[[Path], Value], path: Path, problems: list[CheckpointError]
) -> Value | None:
    try:
        return read(path)
    except CheckpointError as problem:
        if str(problem) not in map(str, problems):  # several readers meet the same bad file
            problems.append(problem)
        return None
