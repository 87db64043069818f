"""`vidray bench gpu`: the checks as a table, or what they would come to, as an estimate."""

import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.bench_frames import read_all
from jobs.lab.gpu.all_checks import run
from jobs.lab.gpu.device import Device
from jobs.lab.gpu.reader_estimate import Clips, estimate
from jobs.plan.hardware import CARDS, MATMUL_SHARE, MEMORY_SHARE
from pipeline.config import GIB
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.types import Grid

HIDDEN = ("check", "device", "passed", "took s", "reason", "where")
CLIP = Clips(grid=Grid(15, 26, 46, GEOMETRY))  # 30 frames, 360p
CLIP_S = 15
REPLICAS = (("7B", 1), ("72B", 4), ("72B", 8))


def print_checks(console: Console) -> bool:
    """Run and print every check as it ends; whether all passed."""
    device = Device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("check", "figure", "value", title=f"GPU check on {device.label}")
    all_passed = True
    for line in run(device):
        all_passed = all_passed and line["passed"]
        verdict = "" if line["passed"] else f"FAILED: {line['reason']}"
        table.add_row(line["check"], verdict, f"{line['took s']} s", style="bold")
        for figure, value in line.items():
            if figure not in HIDDEN:
                table.add_row("", figure, Text(str(value)))
    console.print(table)
    return all_passed


def print_estimate(console: Console, folder: Path) -> None:
    """Clips a minute and the cores that keep the GPUs busy, by card and size of the model."""
    clip = make_clip(folder, duration_s=CLIP_S)
    _core_seconds(clip)  # once for the page cache
    reading_s = _core_seconds(clip)
    table = Table(
        "model", "card", "tower", "prefill", "words", "clips/min", "cores for it",
        title=f"{CLIP.grid.num_frames} frames of 360p, {CLIP.num_words} words in batches of "
        f"{CLIP.batch}; a core reads such a clip in {reading_s:.2f} s (measured here); a card "
        f"reaches {MATMUL_SHARE:.0%} of its peak and {MEMORY_SHARE:.0%} of its memory's rate "
        "(guesses until gpu-check)",
    )  # fmt: skip
    for name, num_cards in REPLICAS:
        for card in CARDS:
            found = estimate(SIZES[name], CLIP, card, num_cards=num_cards, reading_s=reading_s)
            cards = f"{num_cards} x {card.name}"
            if not found.has_room:
                table.add_row(name, cards, f"needs {found.rank_bytes / GIB:.0f} GiB")
                continue
            table.add_row(
                name,
                cards,
                *(
                    f"{each * 1e3:,.0f} ms"
                    for each in (found.tower_s, found.prefill_s, found.words_s)
                ),
                f"{found.clips_per_minute:,.0f}",
                f"{found.num_cores:.1f}",
            )
    console.print(table)


def _core_seconds(clip: Path) -> float:
    """Of one reading child on one core, wall time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started_s = time.perf_counter()
        read_all(clip, fps=2.0)
        return time.perf_counter() - started_s
    finally:
        torch.set_num_threads(before)
