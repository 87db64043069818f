"""The demo model's evaluation asks the real pipeline about real files and counts every answer."""

import json

import pytest
from typer.testing import CliRunner

from jobs.demo.questions import ASKING
from jobs.lab.train.cli import app
from jobs.lab.train.evaluate import VARIANTS, evaluate
from jobs.lab.train.export import export
from jobs.lab.train.train import untrained
from jobs.lab.train.vocabulary import load_tokenizer


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory):
    """A checkpoint that has learnt nothing."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = load_tokenizer()
    export(untrained(tokenizer, seed=0).requires_grad_(False), tokenizer, folder, card="")
    return folder


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=lambda v: v.name)
def test_an_ignorant_model_is_asked_everything_and_is_wrong(ignorant, variant):
    scores = evaluate(ignorant, num_clips=1, variant=variant)
    assert scores.total["caption"] == 1
    assert scores.total["absent"] == 1
    assert scores.total.keys() <= {"caption", "box", "absent", *ASKING}
    assert scores.figures["caption"] == scores.figures["mean_iou"] == 0.0


def test_the_command_prints_a_table_and_writes_figures_and_card(ignorant, tmp_path):
    output = tmp_path / "figures.json"
    result = CliRunner().invoke(
        app, ["eval", str(ignorant), "--clips", "1", "--output", str(output), "--write-card"]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert figures["as trained"]["caption"] == 0.0
    assert "| caption | 0.000 |" in (ignorant / "README.md").read_text()
    assert "as trained" in result.output
