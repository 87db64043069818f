"""`make gpu-check` runs without a GPU, in small, and without what a bare GPU machine lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.lab.gpu.__main__ import main
from jobs.lab.gpu.checks import CHECKS
from jobs.lab.gpu.reader_estimate import Clips, estimate
from jobs.model_check import EXAMPLE_TOKENS
from jobs.plan.hardware import CARDS
from jobs.plan.operations import language_weights, tower_flops
from pipeline.config import GIB, MIB
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.model.check import share_of
from pipeline.types import Grid

ABSENT = ("ray", "av", "minio", "vllm", "pyarrow", "rich", "typer")
GRID = Grid(15, 26, 46, GEOMETRY)


@pytest.mark.timeout(300)
def test_every_check_runs_on_a_cpu_without_what_a_bare_machine_lacks():
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
        "from jobs.lab.gpu.__main__ import main; sys.exit(main(['cpu']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=250, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["check"] for line in lines] == list(CHECKS), done.stderr
    assert all(line["passed"] for line in lines), lines
    assert done.returncode == 0


@pytest.mark.parametrize(("name", "says"), [("rocm", "cuda or cpu, got rocm"), ("cuda", "no GPU")])
def test_a_device_that_is_not_there_is_refused_in_a_sentence(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([name]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert says in said.err


def test_the_runbook_says_what_a_rank_of_72b_takes():
    share = share_of(SIZES["72B"], 8)
    told = f"of 8 ranks each {share.weight_bytes / GIB:.2f} GiB, "
    told += f"{share.kv_bytes_per_token * EXAMPLE_TOKENS / MIB:.2f} MiB of KV"
    assert told in (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()


def test_sizes_are_those_of_the_published_models():
    billions = {name: round(language_weights(config) / 1e9, 1) for name, config in SIZES.items()}
    assert billions == {"2B": 1.5, "7B": 7.1, "72B": 71.5}
    assert tower_flops(SIZES["72B"], GRID) / 15 == pytest.approx(1.74e12, rel=0.01)


def test_an_estimate_says_who_waits_for_whom():
    """13 clips a minute on an A100 with all cores at work and the GPU idle: eight readers short."""
    a100 = CARDS[0]
    found = estimate(SIZES["7B"], Clips(grid=GRID), a100, num_cards=1, reading_s=2.0)
    assert 0.2 < found.gpu_s < 2
    assert found.num_cores == pytest.approx(0.9 * 2.0 / found.gpu_s)
    half = estimate(SIZES["7B"], Clips(grid=GRID), a100, num_cards=2, reading_s=2.0)
    assert half.num_cores == pytest.approx(2 * found.num_cores)


@pytest.mark.parametrize(
    ("size", "num_cards", "cards"),
    [
        ("7B", 1, {"A100-80", "A100-40", "H100-80", "H200-141", "L4-24", "L40S-48"}),
        ("72B", 4, {"A100-80", "H100-80", "H200-141", "L40S-48"}),
        ("72B", 8, {"A100-80", "A100-40", "H100-80", "H200-141", "L4-24", "L40S-48"}),
    ],
)
def test_cards_that_cannot_hold_the_weights_are_no_estimate(
    size: str, num_cards: int, cards: set[str]
):
    found = {
        card.name: estimate(SIZES[size], Clips(grid=GRID), card, num_cards=num_cards, reading_s=1)
        for card in CARDS
    }
    assert {name for name, each in found.items() if each.has_room} == cards
