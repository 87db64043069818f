"""The demo model's training as a command: all stages, and on from where it stopped."""

import json

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from jobs.lab.train.cli import app
from jobs.models import DEMO_MODEL
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_training_goes_through_its_stages_and_on_where_it_stopped(tmp_path):
    def train(steps):
        budget = ["--decoder-steps", "1", "--vision-steps", "1", "--together-steps", str(steps)]
        arguments = ["train", str(tmp_path), *budget, "--threads", "1"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output

    train(1)
    first = load_model(tmp_path / "weights")
    Tokenizer.load(tmp_path / "weights")
    train(2)
    second = load_model(tmp_path / "weights")
    for stage, step in (("decoder", 1), ("vision", 1), ("together", 2)):
        with safe_open(tmp_path / stage / "last.safetensors", framework="pt") as file:
            assert file.metadata()["step"] == str(step)
    moved = [
        not torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    ]
    assert any(moved)
    assert json.loads((tmp_path / "weights" / "config.json").read_text())["hidden_size"] == 192


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_training_goes_on_from_a_trained_model_with_both_halves_at_once(tmp_path):
    arguments = ["train", str(tmp_path), "--from", str(DEMO_MODEL), "--together-steps", "1"]
    result = CliRunner().invoke(app, [*arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["together", "weights"]
    before, after = load_model(DEMO_MODEL), load_model(tmp_path / "weights")
    distance = [
        ((one - other).norm() / one.norm()).item()
        for one, other in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert 0 < max(distance) < 0.1


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_ablations_train_both_sides_of_each_choice():
    result = CliRunner().invoke(app, ["ablate", "--steps", "5", "--threads", "1"])
    assert result.exit_code == 0, result.output
    for word in ("M-RoPE", "one-dimensional", "dynamic", "fixed", "caption", "edge_px"):
        assert word in result.output
