"""Fills a model with one rank's share of a checkpoint, slice by slice.

Files are mapped, not read: a slice goes from the page cache through the dtype conversion straight
into its place, so a rank never holds more memory of its own than its shard and one slice.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.config import ModelConfig, Numerics
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import CONFIG_FILE, load_config
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.checkpoint import Inventory, StoredTensor, mismatches, part_of, read_inventory
from pipeline.model.head import EMBEDDINGS, HEAD, as_stored
from pipeline.model.parallel import TensorParallel, TensorPart

__all__ = ["default_dtype", "expected_shapes", "load_config", "load_model"]

TOWER = "visual."
NEEDS_VLLM = (
    "vidray's own engine computes with plain weights; serve it by vLLM, with `engine: vllm` under "
    "`decoders` of a profile"
)

Half = Literal["vision", "language"]
HALVES: tuple[Half, ...] = ("vision", "language")


def load_model(
    path: Path,
    *,
    parallel: TensorParallel | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    halves: tuple[Half, ...] = HALVES,
) -> Qwen2VL:
    """This rank's share of the checkpoint in `path`, ready for inference.

    A half that is not asked for stays on the meta device and costs nothing: an encoder needs no
    language model. dtype: of the device's best by default, whatever the file has. CheckpointError,
    before anything is allocated, unless the folder is exactly a checkpoint of its config.json.
    """
    config, device = load_config(path), torch.device(device)
    inventory = read_inventory(path)
    for problem in problems_of(config, inventory):
        raise problem
    if config.quantization is not None and "language" in halves:
        raise CheckpointError(CONFIG_FILE, f"{config.quantization}: {NEEDS_VLLM}")
    if "language" in halves:
        config = as_stored(config, inventory)
    with torch.device("meta"):
        model = Qwen2VL(config, parallel, shares_vision="vision" in halves)
    for half in halves:
        allocate(getattr(model, half), dtype or default_dtype(device), device)
    _fill(model, inventory)
    return model.requires_grad_(False).eval()


def problems_of(config: ModelConfig, inventory: Inventory) -> Iterator[CheckpointError]:
    """What keeps the files from being a checkpoint of `config`.

    Of a quantised one the tower alone is looked at: what the rest consists of is vLLM's to know.
    """
    shapes = expected_shapes(config, inventory)
    if config.quantization is None:
        return mismatches(inventory, shapes)
    tower = {name: shape for name, shape in shapes.items() if name.startswith(TOWER)}
    return mismatches(part_of(inventory, TOWER), tower)


def default_dtype(device: torch.device) -> torch.dtype:
    """What weights are computed in where nobody says otherwise."""
    dtype: torch.dtype = getattr(torch, Numerics.on(device.type).dtype)
    return dtype


def expected_shapes(config: ModelConfig, inventory: Inventory) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor a checkpoint of `config` has, by the hub's name.

    A tied model may come with a copy of its embeddings as lm_head, or with another: see head.py.
    """
    with torch.device("meta"):
        whole = Qwen2VL(config)
    shapes = {part.tensor: part.shape for _, part in whole.checkpoint_parts()}
    if config.tie_word_embeddings and HEAD in inventory.tensors:
        shapes[HEAD] = shapes[EMBEDDINGS]
    return shapes


def allocate(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter memory; rows that no part fills (vocabulary padding) are zero."""
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            memory = torch.zeros(parameter.shape, dtype=dtype, device=device)
            setattr(owner, name, nn.Parameter(memory, requires_grad=False))


def _fill(model: Qwen2VL, inventory: Inventory) -> None:
    """Copy every part whose parameter has memory, file by file: one is mapped at a time."""
    parameters = dict(model.named_parameters())
    by_file = defaultdict[str, list[tuple[Tensor, TensorPart, StoredTensor]]](list)
    for name, part in model.checkpoint_parts():
        if not parameters[name].is_meta and part.length:
            stored = inventory.tensors[part.tensor]
            by_file[stored.file].append((parameters[name], part, stored))
    for file, copies in by_file.items():
        try:
            with safe_open(inventory.folder / file, framework="pt") as mapped:
                for parameter, part, stored in copies:
                    part.destination(parameter).copy_(_slice(mapped, part, stored))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(file, f"can't be read: {error}") from None


def _slice(mapped: Any, part: TensorPart, stored: StoredTensor) -> Tensor:
    index = [slice(None)] * len(part.shape)
    index[part.dim] = slice(part.start, part.stop)
    piece: Tensor = mapped.get_slice(stored.stored_name)[tuple(index)]
    return piece
