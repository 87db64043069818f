"""The trials of a fleet, in short: the commands themselves, on a tiny model."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_folder import write_folder

MAIN = (sys.executable, "-c", "from jobs.cli import main; main()")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (
            ["chaos", "--kills=8", "--videos=4", "--stall=10"],  # each kind of harm once
            "8 injuries over",
        ),
        (["memory", "--clips=40", "--early=20"], "stream host"),
    ],
    ids=["chaos", "memory"],
)
def test_a_short_trial_breaks_no_promise(tmp_path: Path, trial: list[str], said: str) -> None:
    model = write_folder(tmp_path / "model")
    command = [*MAIN, "soak", *trial, str(tmp_path / "clips"), f"--model={model}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    assert said in run.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "fault",
    [
        "model folder away",
        "one of two decoders dead",
        "403 for a while",
        "500 on one key for ever",
    ],
)
def test_a_fault_costs_no_innocent_row(tmp_path: Path, fault: str) -> None:
    model = write_folder(tmp_path / "tiny")
    command = [*MAIN, "soak", "faults", str(tmp_path / "soak"), f"--model={model}"]
    chosen = ["--videos=12", "--scale=0.05", f"--only={fault}"]
    run = subprocess.run(
        [*command, *chosen], capture_output=True, text=True, timeout=880, check=False
    )
    assert run.returncode == 0, run.stderr + run.stdout
    assert "as promised" in run.stdout
