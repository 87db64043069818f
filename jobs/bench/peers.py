"""What users would pick instead, written as their documentation says. Needs the dev extra."""

from collections.abc import Sequence
from pathlib import Path

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


def pyav_frames(path: Path, times_s: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Frames by a plain PyAV loop over the whole clip, resized likewise: (T, C, H, W) uint8."""
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


def _resize(frames: np.ndarray, size: tuple[int, int]) -> Tensor:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)


def transformers_model(folder: Path) -> torch.nn.Module:
    """The checkpoint in transformers' own Qwen2-VL, fp32, with its default attention (SDPA)."""
    define_torchvision_operators()
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def define_torchvision_operators() -> None:
    """Let torchvision import beside a CPU-only torch, which lacks two operators it extends."""
    if "torchvision" in _LIBRARIES:
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES["torchvision"] = library


_LIBRARIES: dict[str, torch.library.Library] = {}  # an operator lives as long as its library
