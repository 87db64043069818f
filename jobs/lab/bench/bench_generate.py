"""Generation against transformers and llama.cpp, exact and in the opt-in int8 mode, greedy."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from jobs.lab.bench.llama_cpp import LlamaCpp, has_llama_cpp, write_q8_0
from jobs.lab.bench.measure import Row, milliseconds
from jobs.lab.bench.peers import transformers_model
from jobs.timing import interleaved
from pipeline.config import Sampling
from pipeline.engine.engine import Engine
from pipeline.engine.ids import StreamId
from pipeline.engine.question import Completion, Question
from pipeline.engine.rank import Rank
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model.language import LanguageModel
from pipeline.model.packed_weights import pack
from pipeline.model.quantize import measure, quantize
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model

PROMPT_TOKENS, NEW_TOKENS = 64, 64
STREAM = StreamId("bench", "", 0)
STREAMED_BYTES = 512 << 20
EXACT_TARGET, INT8_TARGET, MEMORY_TARGET, LLAMA_CPP_TARGET = 1.3, 3.0, 0.7, 1.0


def rows(checkpoint: Path, *, rounds: int) -> Iterator[Row]:
    """Yield the table's rows; tokens per second include the short prompt on both sides.

    Not so the share of the memory's rate: a prompt reads the weights once, for all of it.
    """
    # All on one thread: beside the idle team of another, torch's threads do not spin (cores.py).
    with ThreadPoolExecutor(1) as thread:
        yield from _rows(checkpoint, rounds, thread)


def _rows(checkpoint: Path, rounds: int, thread: Executor) -> Iterator[Row]:
    ids = tuple(torch.randint(0, 256, (PROMPT_TOKENS,)).tolist())
    peer_file = checkpoint / "q8_0.gguf" if has_llama_cpp() else None
    exact, rounded, weight_bytes = thread.submit(_load, checkpoint, peer_file).result()
    engines = {
        "exact": _engine(exact, checkpoint, thread),
        "int8": _engine(rounded, checkpoint, thread),
    }
    theirs = transformers_model(checkpoint)
    streamed = torch.ones(STREAMED_BYTES // 4)
    word_seconds: dict[str, list[float]] = {"exact": [], "int8": [], "llama.cpp": []}
    candidates: dict[str, Callable[[], object]] = {
        "exact": lambda: word_seconds["exact"].append(_write(engines["exact"], ids)),
        "int8": lambda: word_seconds["int8"].append(_write(engines["int8"], ids)),
        "memory": lambda: thread.submit(torch.sum, streamed).result(),
        "transformers": lambda: thread.submit(_write_transformers, theirs, ids).result(),
    }
    if peer_file is not None:
        llama_cpp = LlamaCpp(peer_file)
        candidates["llama.cpp"] = lambda: word_seconds["llama.cpp"].append(
            llama_cpp.word_seconds(ids, NEW_TOKENS)
        )
    seconds = interleaved(candidates, rounds=rounds)
    peer = f"transformers {_rate(seconds['transformers'])}"
    error = thread.submit(measure, exact, rounded, ids).result()
    for name, what, target in (
        ("exact", "generation, fp32", EXACT_TARGET),
        ("int8", f"generation, int8: {error}", INT8_TARGET),
    ):
        ratio = seconds["transformers"] / seconds[name]
        yield Row(what=what, vidray=_rate(seconds[name]), peer=peer, ratio=ratio, target=target)
    if peer_file is not None:
        yield _against_llama_cpp(median(word_seconds["int8"]), median(word_seconds["llama.cpp"]))
    limit = STREAMED_BYTES / seconds["memory"]
    for kind, num_bytes, words in (
        ("fp32", weight_bytes, word_seconds["exact"]),
        ("int8", weight_bytes // 4, word_seconds["int8"]),
    ):
        yield _share_of_memory_limit(kind, num_bytes / median(words), limit)


def _load(checkpoint: Path, peer_file: Path | None) -> tuple[LanguageModel, LanguageModel, int]:
    """The language model as it is packed and as it is rounded, and its bytes in float32.

    peer_file: where it is written for llama.cpp.
    """
    exact, rounded = (load_model(checkpoint, halves=("language",)).language for _ in range(2))
    for language in (exact, rounded):
        _give_massive_activations(language)
    weight_bytes = sum(parameter.nbytes for parameter in exact.parameters())
    if peer_file is not None:
        write_q8_0(exact, peer_file)
    pack(exact)
    quantize(rounded)
    return exact, rounded, weight_bytes


@torch.no_grad()
def _give_massive_activations(language: LanguageModel, *, channel: int = 3) -> None:
    """What real models have and random ones lack, and what makes rounding hard.

    One channel is hundreds of times the others from the first layer on, as far as the norms do not
    damp it; the last one takes it back.
    """
    weights = dict(language.named_parameters())
    weights["layers.0.mlp.down_proj.weight"][channel] *= 300
    for index in range(1, len(language.layers)):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"layers.{index}.{norm}.weight"][channel] /= 10
    language.norm.weight[channel] /= 300


def _engine(language: LanguageModel, checkpoint: Path, thread: Executor) -> Engine:
    ends = load_generation(checkpoint).eos_ids
    rank = thread.submit(Rank, language, Tokenizer.load(checkpoint), eos_ids=ends).result()
    return Engine(rank, thread=thread)


def _against_llama_cpp(word_s: float, peer_word_s: float) -> Row:
    return Row(
        what="a word after the first, int8",
        vidray=milliseconds(word_s),
        peer=f"llama.cpp, q8_0 {milliseconds(peer_word_s)}",
        ratio=peer_word_s / word_s,
        target=LLAMA_CPP_TARGET,
    )


def _share_of_memory_limit(kind: str, reached: float, limit: float) -> Row:
    """Every weight is read once a word: how near that is to the memory's rate, bytes a second."""
    return Row(
        what=f"generation, {kind}: share of the memory's rate",
        vidray=f"{reached / 1e9:.1f} GB/s",
        peer=f"streaming read {limit / 1e9:.1f} GB/s",
        ratio=reached / limit,
        target=MEMORY_TARGET,
    )


def _write(engine: Engine, ids: tuple[int, ...]) -> float:
    """Seconds a word took, of those after the first."""
    return asyncio.run(_ask(engine, ids))


async def _ask(engine: Engine, ids: tuple[int, ...]) -> float:
    await engine.open(STREAM, [])
    said = Completion(finish_reason="stop")
    question = Question(ids=ids, sampling=Sampling(max_new_tokens=NEW_TOKENS))
    started = 0.0
    async for delta in engine.ask(STREAM, [question], closes=True):
        started = started or perf_counter()
        said = delta.completion or said
    took = perf_counter() - started
    _require_length(len(said.token_ids))
    return took / (NEW_TOKENS - 1)


def _write_transformers(model: Any, ids: tuple[int, ...]) -> None:
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
        )
    _require_length(output.shape[1] - len(ids))


def _require_length(num_tokens: int) -> None:
    if num_tokens != NEW_TOKENS:
        raise RuntimeError(f"wrote {num_tokens} tokens instead of {NEW_TOKENS}: not comparable")


def _rate(seconds: float) -> str:
    return f"{NEW_TOKENS / seconds:,.1f} tokens/s"
