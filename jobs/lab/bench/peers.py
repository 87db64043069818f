"""What users would pick instead, written as their documentation says. Needs the dev extra."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def decord_frames(path: Path, times_s: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Frames by decord's batch read, resized as vidray does: (T, C, H, W) uint8."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=torch.get_num_threads())
    stamps = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    indices = np.searchsorted(stamps, np.asarray(times_s) + 1e-6, side="right") - 1
    return _resize(reader.get_batch(indices.clip(0)).asnumpy(), size)


def pyav_frames(
    path: Path, times_s: Sequence[float], size: tuple[int, int] | None = None
) -> Tensor:
    """Frames by a plain PyAV loop over the whole clip: (T, C, H, W) uint8.

    size: (H, W) to resize to likewise; None leaves that to a processor.
    """
    import av

    wanted = iter(times_s)
    due = next(wanted, None)
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = torch.get_num_threads()
        for frame in container.decode(stream):
            while due is not None and frame.time >= due - 1e-6:
                pictures.append(_resize(frame.to_ndarray(format="rgb24")[None], size))
                due = next(wanted, None)
    return torch.cat(pictures)


def _resize(frames: np.ndarray, size: tuple[int, int] | None) -> Tensor:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if size is None:
        return pixels
    return torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)


def transformers_model(folder: Path) -> Any:
    """The checkpoint in transformers' own Qwen2-VL, fp32, with its default attention (SDPA)."""
    make_torchvision_importable()
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def transformers_processor(folder: Path, *, num_pixels: int) -> Callable[..., Mapping[str, Tensor]]:
    """Its own processor of Qwen2-VL, which brings every frame near num_pixels."""
    make_torchvision_importable()
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    size = {"shortest_edge": num_pixels, "longest_edge": num_pixels}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
    )


def make_torchvision_importable() -> None:
    """Let torchvision import beside any torch: two operators are defined if it cannot itself.

    PyPI's torchvision is compiled for CUDA, so beside a CPU-only torch its library does not load,
    and it stumbles over operators that are not there. What transformers takes from it is Python.
    Defining them where the library does load would abort the process.
    """
    found = find_spec("torchvision")
    if found is None or found.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    for compiled in Path(found.origin).parent.glob("_C.*"):
        with suppress(OSError):
            torch.ops.load_library(compiled)
            return
    for name in ("nms", "qnms"):
        _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # they live as long as it does
