"""`vidray model check`: prints a model folder's report for people."""

import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.printable import printable
from pipeline.config import GIB, MIB, ModelConfig
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.model.check import ModelReport, check_model
from pipeline.model.checkpoint import Inventory
from pipeline.model.int8_check import int8_error

EXIT_OK, EXIT_BAD_MODEL = 0, 2
EXAMPLE_TOKENS = QWEN2_VL.max_window_tokens  # one full window


def run(path: Path, console: Console, progress: Console, *, int8: bool = False) -> int:
    """Check and print; returns the process's exit code.

    int8: also load the language model, in float32, and round it, to say what that changes
    """
    with progress.status("reading the model folder"):
        report = check_model(path)
    render(report, console)
    if report.problems:
        return EXIT_BAD_MODEL
    if int8:
        with progress.status("comparing with int8"):
            error = int8_error(path)
        console.print(Text(f"int8: {error}"))
    return EXIT_OK


def render(report: ModelReport, console: Console) -> None:
    """What was found, what it costs, and what is wrong. File names are printed literally."""
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(report):
        facts.add_row(Text(name, style="bold"), Text(value))
    console.print(facts)
    if report.shares:
        console.print(_memory(report))
    for problem in report.problems:
        console.print(Text(printable(f"wrong: {problem}"), style="red"))
    for warning in report.warnings:
        console.print(Text(printable(f"note: {warning}"), style="yellow"))
    if not report.problems:
        by_whom = " by vLLM" if report.config and report.config.quantization else ""
        console.print(Text(f"This model is complete and can be loaded{by_whom}.", style="green"))


def _facts(report: ModelReport) -> Iterator[tuple[str, str]]:
    if report.config:
        yield "model", _shape(report.config)
        yield "parameters", _parameters(report)
        if report.config.quantization:
            yield "quantised", str(report.config.quantization)
        yield "KV cache", f"{report.config.kv_bytes_per_token():,} bytes per token in bfloat16"
    if report.inventory:
        yield "weights", _weights(report.inventory)
    if report.tokenizer:
        yield "tokenizer", f"{report.tokenizer.num_tokens:,} tokens"
    if report.generation:
        how = "greedy" if report.generation.sampling.is_greedy else "sampled"
        yield "generation", f"{how}, ends with token {_list(report.generation.eos_ids)}"
    if report.digest:
        yield "digest", report.digest


def _memory(report: ModelReport) -> Table:
    table = Table("ranks", "weights", "KV of 16,384 tokens", "together", title="memory per rank")
    for share in report.shares:
        if share.reason:
            table.add_row(str(share.size), Text(share.reason), "", "")
            continue
        kv_bytes = share.kv_bytes_per_token * EXAMPLE_TOKENS
        sizes = (share.weight_bytes, kv_bytes, share.weight_bytes + kv_bytes)
        table.add_row(str(share.size), *map(_size, sizes))
    return table


def _shape(config: ModelConfig) -> str:
    tied = ", tied embeddings" if config.tie_word_embeddings else ""
    return (
        f"Qwen2-VL, {config.num_layers} layers of {config.hidden_size}, "
        f"{config.num_heads} heads over {config.num_kv_heads}, vision {config.vision.depth} layers "
        f"of {config.vision.embed_dim}{tied}"
    )


def _parameters(report: ModelReport) -> str:
    vision, language = report.num_vision_parameters, report.num_language_parameters
    total = _count(report.num_parameters)
    return f"{total}: vision {_count(vision)}, language {_count(language)}"


def _weights(inventory: Inventory) -> str:
    size, dtypes = _size(inventory.size_bytes), ", ".join(inventory.dtypes)
    return f"{len(inventory.tensors)} tensors in {len(inventory.files)} file(s), {size}, {dtypes}"


def _count(number: int) -> str:
    """Three digits, as models are named: 73.4 B."""
    scale = min(int(math.log10(max(number, 1))) // 3, 3)
    return f"{number / 1000**scale:.3g} {' kMB'[scale]}".strip()


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:,.2f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:,.2f} MiB"


def _list(ids: tuple[int, ...]) -> str:
    return " or ".join(map(str, ids))
