"""Quantised checkpoints: known by their files, left to vLLM, their tower as good as any."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from jobs import model_check
from pipeline.config import Numerics
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.model.digest import display_name
from pipeline.model.weights import load_model
from pipeline.model_identity import ModelIdentity
from tests.tiny_folder import write_folder

METHODS: dict[str, tuple[dict[str, Any], str, dict[str, torch.dtype]]] = {
    "AWQ": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"]},
        "awq, 4 bits",
        {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16},
    ),
    "GPTQ": (
        {"quant_method": "gptq", "bits": 4, "desc_act": False},
        "gptq, 4 bits",
        {"qweight": torch.int32, "g_idx": torch.int32, "scales": torch.float16},
    ),
    "FP8": (
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        "fp8, 8 bits",
        {"weight": torch.float8_e4m3fn, "weight_scale_inv": torch.float32},
    ),
    "compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
        },
        "compressed-tensors, 8 bits",
        {"weight": torch.int8, "weight_scale": torch.bfloat16},
    ),
}


def quantised_folder(folder: Path, name: str) -> Path:
    """A tiny folder whose linear layers are stored as this method stores them."""
    section, _, tensors = METHODS[name]
    write_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": section}))
    file = folder / "model.safetensors"
    stored = dict[str, torch.Tensor]()
    for tensor_name, tensor in load_file(file).items():
        layer, _, kind = tensor_name.rpartition(".")
        if kind == "weight" and "_proj" in layer and not layer.startswith("visual"):
            rows = tensor.shape[0]
            stored |= {
                f"{layer}.{each}": torch.zeros(rows, 4).to(dtype) for each, dtype in tensors.items()
            }
        else:
            stored[tensor_name] = tensor
    save_file(stored, file)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_model_check_knows_it_and_says_what_it_needs(tmp_path: Path, name: str):
    out = io.StringIO()
    folder = quantised_folder(tmp_path / "model", name)
    assert model_check.run(folder, Console(file=out, width=200), Console(quiet=True)) == 0
    assert METHODS[name][1] in out.getvalue()
    assert "`engine: vllm`" in out.getvalue()
    assert "can be loaded by vLLM" in out.getvalue()
    assert display_name(folder) == f"model ({METHODS[name][1]})"
    by_vllm = ModelIdentity.of(folder, numerics=Numerics(device="cuda", engine="vLLM 0.32.0"))
    assert by_vllm.numerics.quantization == METHODS[name][1]
    assert str(by_vllm.numerics) == f"{METHODS[name][1]} on cuda by vLLM 0.32.0"


@pytest.mark.parametrize("name", METHODS)
def test_our_own_engine_refuses_it_with_a_pointer_and_the_tower_loads(tmp_path: Path, name: str):
    folder = quantised_folder(tmp_path / "model", name)
    with pytest.raises(CheckpointError, match=r"own engine computes with plain .*engine: vllm"):
        load_model(folder)
    tower = load_model(folder, halves=("vision",)).vision
    plain = load_model(write_folder(tmp_path / "plain"), halves=("vision",)).vision
    for ours, theirs in zip(tower.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_vllm_is_not_given_is_refused_by_name(tmp_path: Path):
    folder = quantised_folder(tmp_path / "model", "AWQ")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="quantised by bitsandbytes; vLLM is given awq"):
        load_config(folder)


def test_whole_numbers_in_a_plain_checkpoint_are_refused_before_they_become_weights(
    tmp_path: Path,
):
    folder = write_folder(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="up_proj.*dtype I8; supported"):
        load_model(folder)
