"""A whole tiny model folder, written without transformers: what `vidray analyze --model` takes."""

import json
from pathlib import Path

from safetensors.torch import save_file

from tests.tiny_model import Tiny, checkpoint, hub_config, preprocessor_config, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

MAX_PIXELS = 4 * 28 * 28  # a frame is at most four tokens, so tests are quick
# So that short clips have several chunks: two temporal patches each.
CHUNKED_PIXELS = 128 * 28 * 28


def write_folder(
    folder: Path, shape: Tiny | None = None, *, max_pixels: int | None = MAX_PIXELS
) -> Path:
    """max_pixels: of one picture, as the folder asks for; None is Qwen2-VL's own."""
    shape = shape or Tiny()
    limits = {} if max_pixels is None else {"max_pixels": max_pixels}
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": hub_config(shape),
        "preprocessor_config.json": preprocessor_config(shape.geometry) | limits,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer.json").write_text(tiny_tokenizer(shape).json)
    save_file(checkpoint(tiny_model(shape)), folder / "model.safetensors")
    return folder
