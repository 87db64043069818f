"""A tied flag beside a head of its own: what was trained is what scores, and it is said."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from jobs import model_check
from pipeline.model.check import check_model
from pipeline.model.digest import display_name
from pipeline.model.weights import load_model
from tests.tiny_folder import write_folder
from tests.tiny_model import Tiny

FILE, HEAD, EMBEDDINGS = "model.safetensors", "lm_head.weight", "model.embed_tokens.weight"


def folder_with_head(folder: Path, head: torch.Tensor | None) -> Path:
    """A tied model, with this lm_head beside it."""
    write_folder(folder, Tiny(seed=3, tied=True))
    if head is not None:
        save_file(load_file(folder / FILE) | {HEAD: head}, folder / FILE)
    return folder


@pytest.fixture
def embeddings(tmp_path) -> torch.Tensor:
    return load_file(write_folder(tmp_path / "plain", Tiny(seed=3, tied=True)) / FILE)[EMBEDDINGS]


def test_a_head_that_differs_is_used(tmp_path, embeddings):
    head = embeddings.clone()
    head[-1, -1] += 1  # the last number of all
    folder = folder_with_head(tmp_path / "model", head)
    model = load_model(folder).language
    assert model.lm_head is not None
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.embed_tokens.weight, embeddings)


def test_the_check_warns_of_it_and_rows_name_it(tmp_path, embeddings):
    folder = folder_with_head(tmp_path / "model", embeddings + 1)
    console = Console(file=StringIO(), width=200)
    assert model_check.run(folder, console, Console(quiet=True)) == model_check.EXIT_OK
    assert "differs from the embeddings" in console.file.getvalue()
    assert display_name(folder) == "model (own lm_head)"
    assert display_name(folder, int8=True) == "model (int8, own lm_head)"


def test_its_memory_is_counted(tmp_path, embeddings):
    shares = [
        check_model(folder_with_head(tmp_path / name, head)).shares[0].weight_bytes
        for name, head in (("tied", embeddings.clone()), ("own", embeddings + 1))
    ]
    assert shares[1] - shares[0] == 2 * embeddings.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_of_the_embeddings_is_no_head_of_its_own(tmp_path, embeddings, dtype):
    folder = folder_with_head(tmp_path / "model", embeddings.to(dtype))
    assert load_model(folder).language.lm_head is None
    assert check_model(folder).warnings == ()
    assert display_name(folder) == "model"


def test_a_head_of_another_shape_is_refused(tmp_path, embeddings):
    report = check_model(folder_with_head(tmp_path / "model", embeddings[:-1].clone()))
    assert [problem.tensor for problem in report.problems] == [HEAD]


# --- what was trained beside a model


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("has_model", [True, False])
def test_a_folder_with_an_adapter_is_refused(tmp_path, file, has_model):
    folder = tmp_path / "model"
    write_folder(folder) if has_model else folder.mkdir()
    (folder / file).write_text(json.dumps({"peft_type": "LORA"}))
    (problem,) = check_model(folder).problems
    assert problem.file == file
    assert "merge the adapter first" in problem.reason


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.lm_head.modules_to_save.default.weight",
        "lm_head.original_module.weight",
    ],
)
def test_names_that_peft_gave_are_refused(tmp_path, name):
    folder = write_folder(tmp_path / "model")
    save_file(load_file(folder / FILE) | {name: torch.ones(1)}, folder / FILE)
    (problem,) = check_model(folder).problems
    assert problem.tensor == name
    assert "merge the adapter first" in problem.reason
