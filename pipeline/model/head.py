"""Whether a checkpoint scores tokens with its embeddings or with an lm_head of its own.

`tie_word_embeddings` beside an lm_head that is another tensor is what some trainers leave behind.
The file's head is what was trained, so it is used, as transformers 5 does; 4.x drops it.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.model.checkpoint import Inventory, StoredTensor, read_inventory

if TYPE_CHECKING:
    from torch import Tensor

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
ROWS = 4096  # compared at a time


def as_stored(config: ModelConfig, inventory: Inventory) -> ModelConfig:
    """`config`, untied where the files hold a head that differs from the embeddings.

    Both are read to the first difference. Their shapes must be those that `config` asks for.
    """
    if not config.tie_word_embeddings or HEAD not in inventory.tensors:
        return config
    head, embeddings = inventory.tensors[HEAD], inventory.tensors[EMBEDDINGS]
    is_copy = _equal(inventory.folder, head, embeddings)
    return config if is_copy else replace(config, tie_word_embeddings=False)


def has_own_head(folder: Path) -> bool:
    """Whether the folder holds another head than its config.json says."""
    config, inventory = load_config(folder), read_inventory(folder)
    return as_stored(config, inventory) != config


def _equal(folder: Path, one: StoredTensor, other: StoredTensor) -> bool:
    with ExitStack() as files:
        try:
            slices = [
                files.enter_context(safe_open(folder / tensor.file, framework="pt")).get_slice(
                    tensor.stored_name
                )
                for tensor in (one, other)
            ]
            for start in range(0, one.shape[0], ROWS):
                first, second = (piece[start : start + ROWS] for piece in slices)
                if not _same(first, second):
                    return False
        except (SafetensorError, OSError) as error:
            raise CheckpointError(one.file, f"can't be read: {error}", tensor=HEAD) from None
    return True


def _same(one: "Tensor", other: "Tensor") -> bool:
    """Equal numbers; of two dtypes, equal in the coarser one."""
    import torch  # noqa: PLC0415 - seconds, and most folders have one of the two

    if one.dtype != other.dtype:
        coarser = min(one.dtype, other.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        one, other = one.to(coarser), other.to(coarser)
    return torch.equal(one, other)
