"""A wrong, truncated or foreign checkpoint is refused, with the file, the tensor and the reason."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model.check import check_model
from pipeline.model.weights import load_model
from tests.tiny_model import Tiny, write_checkpoint

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TENSOR = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whole") / "model", Tiny(seed=9))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    shape = Tiny(seed=9, shard_size="60KB")
    return write_checkpoint(tmp_path_factory.mktemp("sharded") / "model", shape)


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target / "model"))


def refused(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as refusal:
        load_model(folder)
    report = check_model(folder)  # the check finds the same, and does not raise
    assert str(refusal.value) in [str(problem) for problem in report.problems]
    return refusal.value


# --- the weights of one file


def _edit_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        change(tensors)
        save_file(tensors, folder / SINGLE)

    return apply


def _edit_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / SINGLE).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        data = content[8 + length :]
        (folder / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + data)

    return apply


def _edit_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / SINGLE).write_bytes(change((folder / SINGLE).read_bytes()))

    return apply


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.language_model.norm.weight"] = tensors["model.norm.weight"].clone()


def _replaced_by_pickle(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def _a_folder_for_a_file(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / SINGLE).mkdir()


TRAPS = [
    ("nothing", lambda folder: (folder / SINGLE).unlink(), SINGLE, None, "missing"),
    ("pickle", _replaced_by_pickle, "pytorch_model.bin", None, "pickle"),
    ("folder", _a_folder_for_a_file, SINGLE, None, "not a regular file"),
    ("empty", _edit_bytes(lambda _: b""), SINGLE, None, "not safetensors"),
    ("text", _edit_bytes(lambda _: b"hello " * 99), SINGLE, None, "not safetensors"),
    ("header cut", _edit_bytes(lambda b: b[:100]), SINGLE, None, "truncated"),
    ("data cut", _edit_bytes(lambda b: b[:-1]), SINGLE, "any", "truncated"),
    ("half", _edit_bytes(lambda b: b[: len(b) // 2]), SINGLE, "any", "truncated"),
    ("padded", _edit_bytes(lambda b: b + b"\0"), SINGLE, None, "belong to no tensor"),
    ("length", _edit_bytes(lambda b: b"\xff" * 8 + b[8:]), SINGLE, None, "header of"),
    ("short length", _edit_bytes(lambda b: b"\x09" + bytes(7) + b[8:]), SINGLE, None, "JSON"),
    ("no JSON", _edit_bytes(lambda b: b[:8] + b"!" + b[9:]), SINGLE, None, "not valid JSON"),
    ("lost", _edit_tensors(lambda t: t.pop(TENSOR)), SINGLE, TENSOR, "missing from"),
    ("extra", _edit_tensors(lambda t: t.update(x=torch.ones(1))), SINGLE, "x", "no tensor of"),
    (
        "shape",
        _edit_tensors(lambda t: t.update({TENSOR: t[TENSOR].T.contiguous()})),
        SINGLE,
        TENSOR,
        r"has shape \[64, 96\]; config.json asks for \[96, 64\]",
    ),
    (
        "dtype",
        _edit_tensors(lambda t: t.update({TENSOR: t[TENSOR].to(torch.int8)})),
        SINGLE,
        TENSOR,
        "dtype I8",
    ),
    ("two names", _edit_tensors(_rename), SINGLE, "model.norm.weight", "also in"),
    (
        "shape lies",
        _edit_header(lambda h: h[TENSOR].update(shape=[96, 65])),
        SINGLE,
        TENSOR,
        "bytes for shape",
    ),
    (
        "overlap",
        _edit_header(lambda h: h[TENSOR].update(data_offsets=[0, 96 * 64 * 4])),
        SINGLE,
        "any",
        "overlaps",
    ),
    (
        "negative",
        _edit_header(lambda h: h[TENSOR].update(data_offsets=[-4, 96 * 64 * 4 - 4])),
        SINGLE,
        TENSOR,
        "greater than or equal to 0",
    ),
    ("entry", _edit_header(lambda h: h.update({TENSOR: 3})), SINGLE, TENSOR, "object"),
]


@pytest.mark.parametrize(
    ("damage", "file", "tensor", "reason"),
    [trap[1:] for trap in TRAPS],
    ids=[trap[0] for trap in TRAPS],
)
def test_a_damaged_file_is_refused(whole, tmp_path, damage, file, tensor, reason):
    folder = copied(whole, tmp_path)
    damage(folder)
    error = refused(folder)
    assert error.file == file
    assert (error.tensor is not None) if tensor == "any" else (error.tensor == tensor)
    assert re.search(reason, error.reason)


# --- shards and their index


def _edit_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text())
        change(content["weight_map"])
        (folder / INDEX).write_text(json.dumps(content))

    return apply


def _shard_of(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def _lose_a_shard(folder: Path) -> None:
    _shard_of(folder, TENSOR).unlink()


def _cut_a_shard(folder: Path) -> None:
    shard = _shard_of(folder, TENSOR)
    shard.write_bytes(shard.read_bytes()[:-10])


def _swap_two_shards(folder: Path) -> None:
    one, other = _shard_of(folder, TENSOR), _shard_of(folder, "lm_head.weight")
    one.rename(folder / "third")
    other.rename(one)
    (folder / "third").rename(other)


def _copy_a_tensor(folder: Path) -> None:
    shard = _shard_of(folder, "lm_head.weight")
    tensor = load_file(_shard_of(folder, TENSOR))[TENSOR]
    save_file(load_file(shard) | {TENSOR: tensor}, shard)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_lose_a_shard, "missing, or not a regular file"),
        (_cut_a_shard, "truncated"),
        (_swap_two_shards, "lacks what"),
        (_copy_a_tensor, "also in"),
        (lambda folder: (folder / INDEX).unlink(), "missing, though there is model-00001"),
        (lambda folder: (folder / INDEX).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / INDEX).write_text("{}"), "weight_map: Field required"),
        (_edit_index(dict.clear), "weight_map is empty"),
        (_edit_index(lambda m: m.update(x="nowhere.safetensors")), "missing, or not a regular"),
        (_edit_index(lambda m: m.update(x=m[TENSOR])), "lacks what"),
        (_edit_index(lambda m: m.update(x="../model.safetensors")), "no safetensors file name"),
        (_edit_index(lambda m: m.update(x="/etc/passwd")), "no safetensors file name"),
        (_edit_index(lambda m: m.update(x="pytorch_model.bin")), "no safetensors file name"),
        (_edit_index(lambda m: m.update(x=3)), "weight_map.x"),
    ],
)
def test_a_damaged_set_of_shards_is_refused(sharded, tmp_path, damage, reason):
    folder = copied(sharded, tmp_path)
    damage(folder)
    assert re.search(reason, str(refused(folder)))


# --- config.json and its siblings


def _edit_config(folder: Path, changes: dict[str, Any]) -> None:
    content = json.loads((folder / CONFIG).read_text())
    for path, value in changes.items():
        *above, last = path.split(".")
        target = content
        for key in above:
            target = target[key]
        target[last] = value
    (folder / CONFIG).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "qwen2_5_vl"}, "model_type is 'qwen2_5_vl'"),
        ({"model_type": None}, "model_type is None"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "architectures is"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"hidden_size": "64"}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"rope_scaling": None}, "mrope_section must add up to half"),
        ({"rope_scaling.type": "yarn"}, "rope type is 'yarn'"),
        ({"rope_scaling.mrope_section": [3, 3]}, "mrope_section"),
        ({"rope_scaling.mrope_section": [4, 4, 4]}, "mrope_section must add up to half"),
        ({"num_key_value_heads": 3}, "divide by num_key_value_heads"),
        ({"num_attention_heads": 3}, "divide by num_attention_heads"),
        ({"head_dim": 99}, "head_dim 99"),
        ({"vision_config": None}, "vision hidden_size is 3584"),
        ({"vision_config.patch_size": 16}, "patch_size must be 16, got 14"),  # preprocessor_config
        ({"vision_config.patch_size": 0}, "patch_size: Input should be greater"),
        ({"vision_config.spatial_merge_size": 17}, "spatial_merge_size: Input should be less"),
        ({"vision_config.hidden_size": 65}, "vision hidden_size is 65"),
        ({"vision_config.num_heads": 3}, "vision embed_dim must divide"),
        ({"video_token_id": 301}, "stay below vocab_size 301"),
        ({"video_token_id": 299}, "special token ids must differ"),
        ({"intermediate_size": 128}, "config.json asks for"),
        ({"num_hidden_layers": 1}, "no tensor of this model"),
        ({"num_hidden_layers": 3}, "missing from the checkpoint"),
        ({"tie_word_embeddings": True, "num_hidden_layers": 3}, "missing from the checkpoint"),
    ],
    ids=str,
)
def test_a_config_we_cannot_honour_is_refused(whole, tmp_path, changes, reason):
    folder = copied(whole, tmp_path)
    _edit_config(folder, changes)
    assert re.search(reason, str(refused(folder)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[]", "must hold a JSON object, got \\[\\]"),
        ("[" * 100_000, "nested too deep"),
        ('{"hidden_size": ' + "9" * 5_000 + "}", "not valid JSON"),
        ("\udcff", "not UTF-8"),
    ],
    ids=["empty", "list", "deep", "huge number", "bytes"],
)
def test_a_config_that_is_no_json_object_is_refused(whole, tmp_path, text, reason):
    folder = copied(whole, tmp_path)
    (folder / CONFIG).write_bytes(text.encode(errors="surrogateescape"))
    assert re.search(reason, str(refused(folder)))


def test_a_folder_without_config_is_refused(whole, tmp_path):
    folder = copied(whole, tmp_path)
    (folder / CONFIG).unlink()
    assert refused(folder).file == CONFIG


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("{}")
    for name in ("nowhere", "file"):
        assert refused(tmp_path / name).reason == "not a model folder"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("generation_config.json", {"eos_token_id": 301}, "eos_token_id 301, but the model knows"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id"),
        ("generation_config.json", {"do_sample": True, "top_p": 3.0}, "top_p is out of range"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean needs 3 values"),
        ("preprocessor_config.json", {"image_std": [1, 1, 0]}, "image_std"),
        ("preprocessor_config.json", {"patch_size": 16}, "patch_size must be 14, got 16"),
        (
            "preprocessor_config.json",
            {"do_normalize": False},
            "do_normalize must be true, got false",
        ),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "rescale_factor must be 1/255"),
    ],
    ids=str,
)
def test_a_sibling_of_config_we_cannot_honour_is_refused(whole, tmp_path, file, content, reason):
    folder = copied(whole, tmp_path)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as refusal:
        load_generation(folder)  # reads config.json too, and that the preprocessor config
    assert refusal.value.file == file
    assert re.search(reason, refusal.value.reason)
