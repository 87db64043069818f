"""A name and a number for a checkpoint, to write next to what it produced."""

import hashlib
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.model.checkpoint import Inventory, read_inventory
from pipeline.model.head import has_own_head

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
)
BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 4096  # from the middle of each tensor


def display_name(folder: Path, *, int8: bool = False) -> str:
    """The folder's own name, and in brackets what else every row should say of it.

    "int8" is the opt-in mode of quantize.py, "own lm_head" one that config.json knows nothing of.
    """
    quantization = load_config(folder).quantization
    notes = [*["int8"] * int8, *["own lm_head"] * has_own_head(folder)]
    notes += [str(quantization)] * (quantization is not None)
    name = folder.resolve().name
    return f"{name} ({', '.join(notes)})" if notes else name


def digest(folder: Path, *, full: bool = False) -> str:
    """sha256 (hex) of the small files and of every tensor's name, dtype, shape and sampled bytes.

    It does not depend on how tensors are spread over files, nor on their order. Sampling tells two
    trainings of one architecture apart in milliseconds per gigabyte; it misses a change of single
    values outside the samples. With `full` every byte counts, at the speed of the disk.
    """
    inventory = read_inventory(folder)
    state = hashlib.sha256(b"full" if full else b"sampled")
    for name in SMALL_FILES:
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        state.update(f"{name} {len(content)}\n".encode() + content)
    for name in sorted(inventory.tensors):
        _add_tensor(state, inventory, name, full=full)
    return state.hexdigest()


def _add_tensor(state: "hashlib._Hash", inventory: Inventory, name: str, *, full: bool) -> None:
    tensor = inventory.tensors[name]
    state.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
    size_bytes = tensor.stop - tensor.start
    length = size_bytes if full else min(SAMPLE_BYTES, size_bytes)
    try:
        with (inventory.folder / tensor.file).open("rb") as stream:
            stream.seek(tensor.start + (size_bytes - length) // 2)
            while length > 0 and (block := stream.read(min(length, BLOCK_BYTES))):
                state.update(block)
                length -= len(block)
    except OSError as error:
        raise CheckpointError(tensor.file, f"can't be read: {error.strerror}") from None
