"""`make gpu-check` runs without a GPU, in small, and without what a bare GPU machine lacks."""

import json
import subprocess
import sys

import pytest

from jobs.lab.gpu.checks import CHECKS
from jobs.lab.gpu.reader_estimate import Clips, estimate
from jobs.plan.hardware import CARDS
from jobs.plan.operations import language_weights, tower_flops
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.published import SIZES
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
