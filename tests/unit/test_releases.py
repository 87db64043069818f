"""A folder that a released transformers wrote loads, and means what that release meant by it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.preprocessor_config import load_preprocessing
from pipeline.model.weights import load_model
from tests.tiny_model import Tiny, hub_config

WRITTEN = Path(__file__).parents[1] / "checkpoints"
RELEASES = ("4.45.2", "4.49.0", "4.51.3", "4.53.3", "4.57.6", "5.23.0")
CASES = {
    f"{release} {name}": case
    for release in RELEASES
    for name, case in json.loads((WRITTEN / f"{release}.json").read_text()).items()
}
# Of these nobody could make a model: 3,584 numbers a token from the tower, 8,192 in the decoder.
CONFIGS = {
    name: case
    for name, case in CASES.items()
    if "config.json" in case["files"] and "defaults" not in name
}
MODELS = {name: case for name, case in CASES.items() if "tensors" in case}
PIXELS = {name: case for name, case in CASES.items() if "pixels" in name}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def known(means: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in means.items() if value is not None}


def test_every_release_wrote_every_kind():
    for release in RELEASES:
        names = [name for name in CASES if name.startswith(release)]
        for kind in ("2B", "7B", "72B", "resized", "frozen", "merged", "pixels", "whole processor"):
            assert any(kind in name for name in names), (release, kind)


@pytest.mark.parametrize("case", CONFIGS.values(), ids=CONFIGS)
def test_a_config_means_what_its_release_meant(tmp_path, case):
    config = asdict(load_config(write(tmp_path, case["files"])))
    expected = known(case["means"])
    got = {name: config[name] for name in expected}
    got["vision"] = {name: config["vision"][name] for name in expected["vision"]}
    assert got == expected | {"mrope_section": tuple(expected["mrope_section"])}


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_the_weights_of_a_fine_tune_fit_its_config(tmp_path, case):
    tensors = {name: torch.zeros(shape) for name, shape in case["tensors"].items()}
    save_file(tensors, write(tmp_path, case["files"]) / "model.safetensors")
    model = load_model(tmp_path)
    assert model.language.embed_tokens.weight.shape[0] == case["means"]["vocab_size"]
    assert load_generation(tmp_path).eos_ids == (295,)


@pytest.mark.parametrize("case", PIXELS.values(), ids=PIXELS)
def test_pixels_mean_what_their_release_meant(tmp_path, case):
    got = load_preprocessing(write(tmp_path, case["files"]), geometry=GEOMETRY)
    assert {
        "image_mean": list(got.image_mean),
        "image_std": list(got.image_std),
        "min_pixels": got.min_pixels,
        "max_pixels": got.max_pixels,
    } == case["means"]


# --- what no release writes by itself, but people do


def nested(text: dict[str, Any], **outer: Any) -> dict[str, Any]:
    """A config in two objects that contradict each other."""
    flat = hub_config(Tiny())
    return flat | {"text_config": flat | text} | outer


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        (nested({"vocab_size": 320}), "vocab_size", 320),
        (nested({}, vocab_size=290), "vocab_size", Tiny().vocab_size),
        (nested({"rope_theta": 5e5}), "rope_theta", 5e5),
        (nested({"tie_word_embeddings": True}), "tie_word_embeddings", True),
        (nested({}, tie_word_embeddings=True), "tie_word_embeddings", True),
        (nested({"num_key_value_heads": None}), "num_kv_heads", 4),
        (nested({"rms_norm_eps": None}), "rms_norm_eps", 1e-5),
        (nested({}, architectures=None), "num_layers", 2),
        (nested({}, vision_start_token_id=None, vocab_size=9) | {}, None, "special token ids"),
        (nested({"quantization_config": {"bits": 4}}), None, "quantised"),
        (nested({}, quantization_config={"bits": 4}), None, "quantised"),
        (nested({}, text_config=[1]), None, "text_config must be an object"),
        (
            nested({}, vision_config={"hidden_size": 64, "rope_parameters": {"rope_theta": 5e5}}),
            None,
            "vision rope_theta is 500000.0",
        ),
    ],
    ids=str,
)
def test_the_inner_object_speaks_for_the_language_model(tmp_path, content, field, value):
    folder = write(tmp_path, {"config.json": content})
    if field is None:
        with pytest.raises(CheckpointError, match=value):
            load_config(folder)
    else:
        assert getattr(load_config(folder), field) == value


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        ({"min_pixels": 3136.0, "max_pixels": 200704.0}, (3136, 200_704)),
        ({"size": {"min_pixels": 3136, "max_pixels": 200_704}}, (3136, 200_704)),
        ({"size": {"shortest_edge": 3136.0, "longest_edge": 200_704}}, (3136, 200_704)),
        ({"max_pixels": 200_704, "size": {"shortest_edge": 1, "longest_edge": 2}}, (1, 200_704)),
        ({"max_pixels": None, "size": {"longest_edge": 200_704}}, (3136, 200_704)),
        ({"size": None, "do_rescale": None, "rescale_factor": None}, (3136, 1_003_520)),
        ({"patch_size": None, "image_mean": None, "do_normalize": None}, (3136, 1_003_520)),
        ({"max_pixels": 2000}, (2000, 2000)),  # what nobody wrote contradicts nobody
        ({"patch_size": 14.0, "merge_size": 2.0, "temporal_patch_size": 2.0}, (3136, 1_003_520)),
    ],
    ids=str,
)
def test_pixel_limits_are_read_in_every_spelling(tmp_path, content, limits):
    folder = write(tmp_path, {"preprocessor_config.json": content})
    got = load_preprocessing(folder, geometry=GEOMETRY)
    assert (got.min_pixels, got.max_pixels) == limits


@pytest.mark.parametrize(
    "content",
    [
        {"min_pixels": 200_704, "max_pixels": 3136},
        {"min_pixels": 12_845_056},
        {"min_pixels": 200_704, "size": {"longest_edge": 3136}},
        {"size": {"shortest_edge": 200_704.0, "longest_edge": 3136.0}},
        {"size": {"min_pixels": 200_704, "max_pixels": 3136}},
    ],
    ids=str,
)
def test_a_least_above_the_most_is_refused_by_name(tmp_path, content):
    folder = write(tmp_path, {"preprocessor_config.json": content})
    with pytest.raises(CheckpointError, match=r"min_pixels \d+ is above max_pixels \d+"):
        load_preprocessing(folder, geometry=GEOMETRY)


def test_nulls_of_a_generation_config_are_its_defaults(tmp_path):
    nulls = dict.fromkeys(("do_sample", "temperature", "top_k", "eos_token_id", "max_new_tokens"))
    write(tmp_path, {"config.json": hub_config(Tiny()), "generation_config.json": nulls})
    assert load_generation(tmp_path).sampling.is_greedy
