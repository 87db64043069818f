"""The checks, in the order in which their answers matter. Each returns its figures or raises."""

import gc
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from jobs.lab.gpu.attention_check import errors
from jobs.lab.gpu.device import Device, limits
from jobs.lab.gpu.peer import transformers_model
from jobs.lab.gpu.shapes import OneOfMany, language_model, small, vision_tower
from pipeline.config import ModelConfig, Sampling
from pipeline.engine.cache import KVCache
from pipeline.engine.sampler import Sampler
from pipeline.engine.step import Addition, step
from pipeline.families.qwen2_vl.positions import text_positions, video_positions
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.model.language import LanguageModel, Segment
from pipeline.types import Grid

Figures = Mapping[str, object]
RANKS = 8  # of 72B
FRAME = (364, 644)  # 640 x 360 as the paper's rule has it: 299 tokens for each two frames


class CheckFailed(Exception):
    """A figure is not what it has to be."""


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise CheckFailed(reason)


def environment(device: Device) -> Figures:
    """What is there."""
    packages = ("torch", "triton", "transformers", "numpy", "safetensors")
    found: dict[str, object] = {"python": platform.python_version(), "device": device.label}
    found |= {name: _version(name) for name in packages}
    if device.is_gpu:
        properties = torch.cuda.get_device_properties(0)
        found["memory GiB"] = round(properties.total_memory / 2**30, 1)
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["cuda"] = torch.version.cuda
    return found


def machine_limits(device: Device) -> Figures:
    """What the card does at most, measured: the other figures are held against it."""
    return {what: round(value, 1) for what, value in limits(device).items()}


def attention_accuracy(device: Device) -> Figures:
    """Against its definition, biased keys, up to 16,384 of them; under 1 % off in bfloat16."""
    lengths = (1, 7, 1000, 4096, 16_384) if device.is_gpu else (1, 7, 300)
    heads = (8, 1) if device.is_gpu else (4, 2)
    found: dict[str, object] = {}
    for dtype, bound in ((torch.bfloat16, 1e-2), (torch.float32, 1e-4)):
        worst = max(errors(device.name, dtype, lengths=lengths, heads=heads), key=lambda e: e[1])
        found[str(dtype)] = f"at most {worst[1]:.1e} ({worst[0]})"
        require(worst[1] < bound, f"{dtype}: {worst[0]} is {worst[1]:.1e} off; limit {bound:g}")
    return found


@torch.inference_mode()
def small_model(device: Device) -> Figures:
    """A small model there in float32 and bfloat16 against the CPU's float32, and transformers'."""
    config = small(SIZES["7B"])
    reference = language_model(config, dtype=torch.float32, device="cpu")
    grid = Grid(8, 4, 6, config.vision.geometry)
    vectors, positions = _prompt(config, grid)
    expected = _logits(reference, vectors, positions, sizes=(len(vectors),))
    found: dict[str, object] = {}
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        model = language_model(config, dtype=dtype, device=device.name)
        model.load_state_dict(reference.state_dict())
        for what, sizes in (("whole", (len(vectors),)), ("in chunks", (20, 20, 14))):
            given = vectors.to(device.name, dtype), positions.to(device.name)
            error = _relative(_logits(model, *given, sizes=sizes).cpu().float(), expected)
            found[f"{dtype}, {what}"] = f"{error:.1e}"
            require(error < bound, f"{dtype}, {what}: {error:.1e} off; limit {bound:g}")
    theirs = transformers_model(config, reference, device=device.name, dtype=torch.float32)
    if theirs is None:
        return found | {"transformers": "not installed"}
    logits = theirs(
        inputs_embeds=vectors[None].to(device.name),
        position_ids=positions[:, None].to(device.name),
        use_cache=False,
    ).logits[0, -1]
    error = _relative(logits.cpu(), expected)
    require(error < 1e-4, f"transformers on the same device: {error:.1e} off; limit 1e-4")
    return found | {"against transformers": f"{error:.1e}"}


@torch.inference_mode()
def tower(device: Device) -> Figures:
    """The tower against the CPU's float32, chunk by chunk, and its rate by how much is a batch."""
    config = (SIZES["72B"] if device.is_gpu else small(SIZES["72B"])).vision
    frames = torch.randint(0, 256, (4, *FRAME, 3), dtype=torch.uint8)
    if not device.is_gpu:
        frames = frames[:, :56, :84]
    shallow = replace(config, depth=min(config.depth, 2))
    reference = vision_tower(shallow, dtype=torch.float32, device="cpu")
    expected = reference(frames[:2])
    there = vision_tower(shallow, dtype=device.dtype, device=device.name)
    there.load_state_dict(reference.state_dict())
    whole = there(frames.to(device.name)).float().cpu()
    error = _relative(whole[: len(expected)], expected)
    parts = torch.cat([there(part.to(device.name)) for part in frames.split(2)]).float().cpu()
    found: dict[str, object] = {
        "against the CPU": f"{error:.1e}",
        "chunks differ by": f"{_relative(parts, whole):.1e}",
    }
    require(error < 5e-2, f"{error:.1e} off; limit 5e-2")
    full = vision_tower(config, dtype=device.dtype, device=device.name)
    for num_pairs in (1, 4, 14, 28) if device.is_gpu else (1, 2):
        batch = frames[:2].repeat(num_pairs, 1, 1, 1).to(device.name)
        seconds = device.seconds(partial(full, batch), rounds=3)
        tokens = num_pairs * len(expected)
        found[f"tokens/s, {num_pairs} pairs of frames"] = round(tokens / seconds)
    return found


@torch.inference_mode()
def rank_of_72b(device: Device) -> Figures:
    """One rank of eight: prefill by what stands before, words by the batch, launches a step."""
    config = SIZES["72B"] if device.is_gpu else small(SIZES["72B"])
    parallel = OneOfMany(0, RANKS) if device.is_gpu else OneOfMany(0, 2)
    model = language_model(config, parallel, dtype=device.dtype, device=device.name)
    length, chunk = (16_384, 1024) if device.is_gpu else (256, 64)
    cache = model.new_cache(length)
    found: dict[str, object] = {}
    for past in range(0, length, chunk):
        seconds = _timed_step(device, model, [_chunk(model, cache, past, chunk)])
        if past % (length // 4) == 0 or past + chunk == length:
            found[f"prefill of {chunk} after {past}, ms"] = round(seconds * 1e3, 1)
    del cache
    batches, context = ((1, 8, 64), 2048) if device.is_gpu else ((1, 2), 64)
    for size in batches:
        seconds = _seconds_per_word(device, model, size=size, context=context)
        found[f"words/s, {size} at once after {context}"] = round(size / seconds)
    found["launches in a step of one word"] = _launches(device, model, context)
    if (peak := device.peak_gib()) is not None:
        found["peak GiB"] = round(peak, 1)
    return found


@torch.inference_mode()
def whole_model(name: str, device: Device) -> Figures:
    """2B and 7B as they are: the first word after a clip, words/s, and transformers beside it."""
    config = SIZES[name] if device.is_gpu else small(SIZES[name])
    model = language_model(config, dtype=device.dtype, device=device.name)
    num_tokens, num_words = (8192, 64) if device.is_gpu else (64, 4)
    found: dict[str, object] = {}

    def first_word() -> None:
        cache = model.new_cache(num_tokens + 16)
        for start in range(0, num_tokens, 2048):
            size = min(2048, num_tokens - start)
            step(model, [_chunk(model, cache, start, size)])
        step(model, [_word(model, cache, num_tokens, ids=range(10))])

    found[f"first word after {num_tokens} tokens, ms"] = round(
        device.seconds(first_word, rounds=3) * 1e3
    )
    ours = 1 / _seconds_per_word(device, model, size=1, context=1024 if device.is_gpu else 64)
    found["words/s"] = round(ours, 1)
    theirs = transformers_model(config, model, device=device.name, dtype=device.dtype)
    if theirs is not None:
        ids = torch.zeros(1, 1024 if device.is_gpu else 64, dtype=torch.int64, device=device.name)

        def write() -> None:
            theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=num_words,
                max_new_tokens=num_words,
            )

        rate = num_words / device.seconds(write, rounds=1)
        found["transformers, words/s"] = round(rate, 1)
        found["ratio"] = round(ours / rate, 2)
    return found


CHECKS: Mapping[str, Callable[[Device], Figures]] = {
    "environment": environment,
    "limits": machine_limits,
    "attention": attention_accuracy,
    "small model": small_model,
    "tower": tower,
    "a rank of 72B": rank_of_72b,
    "2B": lambda device: whole_model("2B", device),
    "7B": lambda device: whole_model("7B", device),
}


def free(device: Device) -> None:
    """Give back what the last check held."""
    gc.collect()
    if device.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def _prompt(config: ModelConfig, grid: Grid) -> tuple[Tensor, Tensor]:
    """Vectors (S, D) of some text and a video, and where they stand (3, S)."""
    positions = torch.cat((text_positions(0, 6), video_positions(6, grid)), dim=1)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(positions.shape[1], config.hidden_size, generator=generator) * 0.02
    return vectors, positions


def _logits(
    model: LanguageModel, vectors: Tensor, positions: Tensor, *, sizes: Sequence[int]
) -> Tensor:
    """Of the last token, (V), prefilled in chunks of these sizes."""
    cache = model.new_cache(len(vectors))
    hidden, start = vectors, 0
    for size in sizes:
        rows = slice(start, start + size)
        hidden = model(vectors[rows], positions[:, rows], [Segment(cache, size)])
        start += size
    return model.logits(hidden[-1:])[0]


def _chunk(model: LanguageModel, cache: KVCache, past: int, size: int) -> Addition:
    weight = model.norm.weight
    vectors = torch.full((size, model.config.hidden_size), 0.01).to(weight)
    return Addition(cache, (), text_positions(past, size), vectors)


def _word(model: LanguageModel, cache: KVCache, past: int, ids: Sequence[int]) -> Addition:
    return Addition(cache, ids, text_positions(past, len(ids)), sampler=Sampler(Sampling()))


def _timed_step(device: Device, model: LanguageModel, additions: Sequence[Addition]) -> float:
    device.wait()
    started_s = time.perf_counter()
    step(model, additions)
    device.wait()
    return time.perf_counter() - started_s


def _seconds_per_word(device: Device, model: LanguageModel, *, size: int, context: int) -> float:
    caches = [model.new_cache(context + 32) for _ in range(size)]
    for cache in caches:
        cache.advance(context)  # what they hold does not matter here
    past = context

    def write() -> None:
        nonlocal past
        step(model, [_word(model, cache, past, (7,)) for cache in caches])
        past += 1

    return device.seconds(write, rounds=10 if device.is_gpu else 2)


def _launches(device: Device, model: LanguageModel, context: int) -> object:
    """Kernels in a step, and those that take the most time; on a CPU, its operators."""
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415

    cache = model.new_cache(context + 4)
    cache.advance(context)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.is_gpu else [])]
    with profile(activities=activities) as profiler:
        _timed_step(device, model, [_word(model, cache, context, (7,))])
    events = profiler.key_averages()
    if not device.is_gpu:
        return {"operators": sum(each.count for each in events)}
    kernels = [each for each in events if each.self_device_time_total > 0]
    kernels.sort(key=lambda each: -each.self_device_time_total)
    return {
        "kernels": sum(each.count for each in kernels),
        "top": [
            f"{each.key[:60]} x{each.count}: {each.self_device_time_total / 1e3:.2f} ms"
            for each in kernels[:20]
        ],
    }
