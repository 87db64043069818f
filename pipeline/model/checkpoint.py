"""What tensors a model folder holds: safetensors headers and the index, checked before any use.

Covered: missing, truncated and padded files, headers that lie about their length, shapes or places,
an index that names a missing file, a path or a tensor the file lacks, both name layouts at once,
pickles. All are refused with the file and the tensor named.
Not covered: values. A file of the right shape with other numbers is another model: see `digest`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from pipeline.config import MIB
from pipeline.errors import CheckpointError
from pipeline.model.folder import (
    MERGE_FIRST,
    HubFields,
    parse_fields,
    parse_object,
    read_json,
    require_folder,
)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 * MIB  # the format's own limit
PREFIX_BYTES = 8  # little-endian length of the header
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Of quantised weights, which only vLLM computes with.
ELEMENT_BYTES = FLOAT_BYTES | {
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# First match wins: names written by transformers 4.52 to 4.57 -> the hub's.
NESTED_NAMES = (("model.visual.", "visual."), ("model.language_model.", "model."))
# In the names of tensors that peft wrapped and nobody merged.
ADAPTER_MARKS = (".base_model.", ".lora_", ".base_layer.", ".modules_to_save.", ".original_module.")
# Harmless leftovers: tables every implementation computes for itself.
IGNORED_ENDINGS = (".rotary_emb.inv_freq", ".rotary_pos_emb.inv_freq")


class _Entry(HubFields):
    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


class _Index(HubFields):
    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a checkpoint; start and stop are bytes from the beginning of its file."""

    stored_name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Every tensor of a checkpoint under the hub's name, whatever name it is stored under."""

    folder: Path
    tensors: Mapping[str, StoredTensor]
    files: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.stop - tensor.start for tensor in self.tensors.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted({tensor.dtype for tensor in self.tensors.values()}))


def read_inventory(folder: Path) -> Inventory:
    """The checkpoint in `folder`; CheckpointError for the first thing wrong with its files."""
    weight_map = _weight_map(require_folder(folder))
    files = tuple(sorted(set(weight_map.values()))) if weight_map else (SINGLE_FILE,)
    headers = {file: read_header(folder, file) for file in files}
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise CheckpointError(file, f"lacks what {INDEX_FILE} says it has", tensor=name)
    tensors: dict[str, StoredTensor] = {}
    for tensor in chain.from_iterable(header.values() for header in headers.values()):
        if any(mark in f".{tensor.stored_name}" for mark in ADAPTER_MARKS):
            raise CheckpointError(tensor.file, MERGE_FIRST, tensor=tensor.stored_name)
        name = _hub_name(tensor.stored_name)
        if name in tensors:
            raise CheckpointError(tensor.file, f"also in {tensors[name].file}", tensor=name)
        if not name.endswith(IGNORED_ENDINGS):
            tensors[name] = tensor
    return Inventory(folder=folder, tensors=tensors, files=files)


def mismatches(
    inventory: Inventory, expected: Mapping[str, tuple[int, ...]]
) -> Iterator[CheckpointError]:
    """What keeps `inventory` from being a checkpoint of exactly the `expected` shapes."""
    for name, shape in expected.items():
        tensor = inventory.tensors.get(name)
        if tensor is None:
            yield CheckpointError(inventory.files[0], "missing from the checkpoint", tensor=name)
        elif tensor.shape != shape:
            reason = f"has shape {list(tensor.shape)}; config.json asks for {list(shape)}"
            yield CheckpointError(tensor.file, reason, tensor=name)
        elif tensor.dtype not in FLOAT_BYTES:
            reason = f"dtype {tensor.dtype}; supported: {', '.join(FLOAT_BYTES)}"
            yield CheckpointError(tensor.file, reason, tensor=name)
    for name in inventory.tensors.keys() - expected.keys():
        file = inventory.tensors[name].file
        yield CheckpointError(file, "no tensor of this model", tensor=name)


def part_of(inventory: Inventory, prefix: str) -> Inventory:
    """The tensors whose names begin so."""
    tensors = {name: each for name, each in inventory.tensors.items() if name.startswith(prefix)}
    return replace(inventory, tensors=tensors)


def read_header(folder: Path, name: str) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, by stored name, in the file's own order of bytes."""
    file = folder / name
    if not file.is_file():
        raise CheckpointError(name, "missing, or not a regular file")
    try:
        with file.open("rb") as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            header_bytes = int.from_bytes(stream.read(PREFIX_BYTES), "little")
            begin = PREFIX_BYTES + header_bytes
            if not 2 <= header_bytes <= MAX_HEADER_BYTES or begin > size_bytes:
                reason = f"header of {header_bytes} bytes in a file of {size_bytes}"
                raise CheckpointError(name, f"not safetensors, or truncated: {reason}")
            header = parse_object(name, stream.read(header_bytes))
    except OSError as error:
        raise CheckpointError(name, f"can't be read: {error.strerror}") from None
    header.pop("__metadata__", None)
    tensors = [_tensor(name, key, entry, begin=begin) for key, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _require_gapless(name, tensors, begin=begin, size_bytes=size_bytes)
    return {tensor.stored_name: tensor for tensor in tensors}


def _tensor(file: str, name: str, content: Any, *, begin: int) -> StoredTensor:
    entry = parse_fields(_Entry, file, content, tensor=name)
    start, stop = entry.data_offsets
    if entry.dtype not in ELEMENT_BYTES:
        supported = ", ".join(ELEMENT_BYTES)
        raise CheckpointError(file, f"dtype {entry.dtype}; supported: {supported}", tensor=name)
    if stop - start != prod(entry.shape) * ELEMENT_BYTES[entry.dtype]:
        reason = f"{stop - start} bytes for shape {entry.shape} of {entry.dtype}"
        raise CheckpointError(file, reason, tensor=name)
    return StoredTensor(
        stored_name=name,
        file=file,
        dtype=entry.dtype,
        shape=tuple(entry.shape),
        start=begin + start,
        stop=begin + stop,
    )


def _require_gapless(
    file: str, tensors: list[StoredTensor], *, begin: int, size_bytes: int
) -> None:
    place = begin
    for tensor in tensors:
        if tensor.start != place:
            raise CheckpointError(file, "overlaps or leaves a gap", tensor=tensor.stored_name)
        place = tensor.stop
        if place > size_bytes:
            reason = f"truncated: ends at byte {place} of {size_bytes}"
            raise CheckpointError(file, reason, tensor=tensor.stored_name)
    if place != size_bytes:
        raise CheckpointError(file, f"{size_bytes - place} bytes belong to no tensor")


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file, from the index; empty when the checkpoint is one file."""
    if (folder / SINGLE_FILE).exists():
        return {}
    if not (folder / INDEX_FILE).exists():
        raise _no_weights(folder)
    weight_map = parse_fields(_Index, INDEX_FILE, read_json(folder, INDEX_FILE)).weight_map
    if not weight_map:
        raise CheckpointError(INDEX_FILE, "weight_map is empty")
    for name, file in weight_map.items():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointError(INDEX_FILE, f"{file!r} is no safetensors file name", tensor=name)
    return weight_map


def _no_weights(folder: Path) -> CheckpointError:
    names = sorted(file.name for file in folder.iterdir())
    pickles = [name for name in names if name.endswith(PICKLES)]
    shards = [name for name in names if name.endswith(".safetensors")]
    if shards:
        return CheckpointError(INDEX_FILE, f"missing, though there is {shards[0]}")
    if pickles:
        reason = "a pickle can run code when it is opened; convert it to safetensors"
        return CheckpointError(pickles[0], reason)
    return CheckpointError(SINGLE_FILE, f"missing, and no {INDEX_FILE}")


def _hub_name(name: str) -> str:
    for nested, hub in NESTED_NAMES:
        if name.startswith(nested):
            return hub + name.removeprefix(nested)
    return name
