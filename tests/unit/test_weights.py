"""What is loaded is what the files say, each rank its own slices; the published sizes on paper."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from jobs import model_check
from jobs.models import DEMO_MODEL
from pipeline.config import Sampling
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.check import check_model, share_of
from pipeline.model.digest import digest
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import default_dtype, load_config, load_model
from tests.tiny_model import Reference, Tiny, hub_config, write_checkpoint
from tests.tiny_tokenizer import tiny_tokenizer

# hidden, MLP, layers, heads, kv heads, vocabulary, tied of the three published models
PUBLISHED = {
    "2B": (1536, 8960, 28, 12, 2, 151_936, True),
    "7B": (3584, 18_944, 28, 28, 4, 152_064, False),
    "72B": (8192, 29_568, 80, 64, 8, 152_064, False),
}


def published_config(name: str) -> dict:
    """config.json of a published model, in the hub's flat form."""
    hidden, mlp, layers, heads, kv_heads, vocab, tied = PUBLISHED[name]
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "max_position_embeddings": 32_768,
        "sliding_window": 32_768,
        "use_sliding_window": False,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653,
        "vision_token_id": 151_654,
        "image_token_id": 151_655,
        "video_token_id": 151_656,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": hidden,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def write_published(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(published_config(name)))
    return folder


# --- every layout becomes the same model


def test_every_layout_loads_to_the_tensors_that_were_written(reference: Reference):
    expected = dict(reference.model.named_parameters())
    loaded = dict(load_model(reference.folder).named_parameters())
    assert loaded.keys() == expected.keys()
    for name, parameter in loaded.items():
        assert torch.equal(parameter, expected[name]), name


def test_every_form_of_config_becomes_the_same_config(reference: Reference):
    assert load_config(reference.folder) == reference.shape.config


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_hold_their_slices_and_together_everything(tmp_path, size):
    folder = write_checkpoint(tmp_path / "model", Tiny(seed=6, vision_heads=4))
    whole = {name: torch.zeros(shape) for name, shape in _shapes(folder).items()}
    for rank in range(size):
        model = load_model(folder, parallel=TensorParallel(rank, size))
        parameters = dict(model.named_parameters())
        for name, part in model.checkpoint_parts():
            if part.length:
                part.source(whole[part.tensor]).copy_(part.destination(parameters[name]))
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in stored.items())


def test_ranks_that_only_write_need_no_share_of_the_tower():
    model = load_model(DEMO_MODEL, parallel=TensorParallel(2, 3), halves=("language",))
    assert model.config.vision.num_heads % 3
    assert model.language.layers[0].self_attn.num_heads == model.config.num_heads // 3


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in load_file(folder / "model.safetensors").items()}


def test_a_half_that_is_not_asked_for_takes_no_memory(default_reference: Reference):
    model = load_model(default_reference.folder, halves=("vision",))
    assert all(parameter.is_meta for parameter in model.language.parameters())
    assert not any(parameter.is_meta for parameter in model.vision.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_converted_while_they_are_read(default_reference: Reference, dtype):
    expected = default_reference.model.language.norm.weight
    loaded = load_model(default_reference.folder, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.language.norm.weight, expected.to(dtype))


def test_half_precision_checkpoints_load_on_a_cpu_in_single(tmp_path, default_reference):
    folder = write_checkpoint(tmp_path / "model", default_reference.shape)
    file = folder / "model.safetensors"
    save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)
    model = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    weight = default_reference.model.language.norm.weight
    assert torch.equal(model.language.norm.weight, weight.bfloat16().float())


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.float32), ("cuda", torch.bfloat16), ("meta", torch.bfloat16)],
)
def test_the_default_dtype_is_never_float16(device, dtype):
    assert default_dtype(torch.device(device)) is dtype


def test_a_tied_model_may_come_with_a_copy_of_its_embeddings(tmp_path):
    shape = Tiny(seed=7, tied=True)
    folder = write_checkpoint(tmp_path / "model", shape)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    assert load_model(folder).language.lm_head is None


# --- the published sizes


@pytest.mark.parametrize(
    ("name", "billions", "vision_millions", "kv_bytes"),
    [("2B", 2.21, 665.3, 28_672), ("7B", 8.29, 675.8, 57_344), ("72B", 73.4, 699.4, 327_680)],
)
def test_a_config_alone_gives_the_published_sizes(
    tmp_path, name, billions, vision_millions, kv_bytes
):
    report = check_model(write_published(tmp_path / name, name))
    assert report.config is not None
    assert report.num_parameters / 1e9 == pytest.approx(billions, rel=2e-3)
    assert report.num_vision_parameters / 1e6 == pytest.approx(vision_millions, abs=0.05)
    assert report.config.kv_bytes_per_token() == kv_bytes


@pytest.mark.parametrize(
    ("name", "sizes"), [("2B", [1, 2, 4]), ("7B", [1, 2, 4]), ("72B", [1, 2, 4, 8])]
)
def test_only_sizes_that_split_the_heads_are_offered(tmp_path, name, sizes):
    report = check_model(write_published(tmp_path / name, name))
    assert [share.size for share in report.shares if share.reason is None] == sizes


def test_each_of_eight_ranks_holds_an_eighth_of_the_72b(tmp_path):
    config = load_config(write_published(tmp_path / "72B", "72B"))
    whole, eighth = share_of(config, 1), share_of(config, 8)
    assert whole.weight_bytes == 2 * 73_405_560_320
    assert eighth.weight_bytes / whole.weight_bytes == pytest.approx(1 / 8, rel=1e-3)
    assert eighth.kv_bytes_per_token == 40_960


def test_key_value_heads_that_are_copied_count_once_per_rank(tmp_path):
    config = load_config(write_published(tmp_path / "2B", "2B"))
    assert share_of(config, 4).kv_bytes_per_token == share_of(config, 2).kv_bytes_per_token


# --- `vidray model check`


def checked(folder: Path) -> tuple[int, str]:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    code = model_check.run(folder, console, Console(quiet=True))
    return code, console.export_text()


def test_the_check_of_a_whole_folder_says_so(default_reference: Reference, tmp_path):
    folder = write_checkpoint(tmp_path / "model", default_reference.shape)
    (folder / "tokenizer.json").write_text(tiny_tokenizer().json)
    code, text = checked(folder)
    assert code == 0
    for words in ("complete", "2 layers of 64", "301 tokens", "F32", digest(folder)):
        assert words in text


def test_the_check_of_a_config_alone_counts_and_names_what_is_missing(tmp_path):
    code, text = checked(write_published(tmp_path / "72B", "72B"))
    assert code == 2
    for words in ("73.4 B", "699 M", "72.7 B", "327,680", "17.10 GiB"):
        assert words in text
    assert "wrong: tokenizer.json: missing" in text
    assert "wrong: model.safetensors: missing" in text


def test_the_check_prints_hostile_names_literally(tmp_path):
    code, text = checked(tmp_path / "[red]no such")
    assert code == 2
    assert "[red]no such: not a model folder" in text
    assert text.count("not a model folder") == 1


# --- the digest


def test_the_digest_depends_on_weights_and_words_not_on_how_they_lie(tmp_path):
    one = write_checkpoint(tmp_path / "one", Tiny(seed=3))
    many = write_checkpoint(tmp_path / "many", replace(Tiny(seed=3), shard_size="60KB"))
    other = write_checkpoint(tmp_path / "other", Tiny(seed=4))
    for full in (False, True):
        assert digest(one, full=full) == digest(many, full=full)
        assert digest(one, full=full) != digest(other, full=full)
    before = digest(one)
    (one / "tokenizer.json").write_text("{}")
    assert digest(one) != before


def test_only_the_full_digest_sees_every_byte(tmp_path):
    folder = write_checkpoint(tmp_path / "model", Tiny(seed=3))
    sampled, full = digest(folder), digest(folder, full=True)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][0, 0] += 1  # far from the middle
    save_file(tensors, file, metadata={"format": "pt"})
    assert digest(folder) == sampled
    assert digest(folder, full=True) != full


# --- generation and preprocessing


def write_small_files(folder: Path, **contents: dict) -> Path:
    (folder / "config.json").write_text(json.dumps(hub_config(Tiny())))
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "sampling"),
    [
        ({}, Sampling()),
        ({"do_sample": False, "temperature": 0.7}, Sampling()),
        (
            {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001},
            Sampling(temperature=0.01, top_k=1, top_p=0.001),
        ),
        ({"do_sample": True}, Sampling(temperature=1.0, top_k=50)),
        ({"repetition_penalty": 1.05}, Sampling(repetition_penalty=1.05)),
        ({"max_new_tokens": 9}, Sampling(max_new_tokens=9)),
    ],
    ids=str,
)
def test_sampling_is_what_the_checkpoint_asks_for(tmp_path, content, sampling):
    folder = write_small_files(tmp_path, generation_config=content)
    assert load_generation(folder).sampling == sampling


@pytest.mark.parametrize(
    ("content", "eos_ids"),
    [
        ({"eos_token_id": [295, 294], "pad_token_id": 294}, (295, 294)),
        ({"eos_token_id": 294}, (294,)),
        ({}, (295,)),  # config.json's
    ],
    ids=str,
)
def test_answers_end_where_the_checkpoint_says(tmp_path, content, eos_ids):
    folder = write_small_files(tmp_path, generation_config=content)
    assert load_generation(folder).eos_ids == eos_ids


def test_without_generation_config_decoding_is_greedy(tmp_path):
    assert load_generation(write_small_files(tmp_path)).sampling.is_greedy


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config": {"image_mean": MEAN, "image_std": STD}},
        {"video_preprocessor_config": {"image_mean": MEAN, "image_std": STD}},
        {"processor_config": {"image_processor": {"image_mean": MEAN, "image_std": STD}}},
    ],
    ids=lambda files: next(iter(files)),
)
def test_the_tower_normalises_as_the_preprocessor_config_says(tmp_path, files):
    vision = load_config(write_small_files(tmp_path, **files)).vision
    assert (list(vision.image_mean), list(vision.image_std)) == (MEAN, STD)


@pytest.mark.parametrize(
    "content",
    [
        {"min_pixels": 3136, "max_pixels": 12_845_056},
        {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
    ],
    ids=["hub", "transformers 5"],
)
def test_pixel_limits_are_read_in_both_forms(tmp_path, content):
    family = load_family(write_small_files(tmp_path, preprocessor_config=content))
    assert (family.min_pixels, family.max_pixels) == (3136, 12_845_056)


def test_images_and_videos_must_be_normalised_alike(tmp_path):
    folder = write_small_files(
        tmp_path,
        preprocessor_config={"image_mean": MEAN, "image_std": STD},
        video_preprocessor_config={"image_mean": STD, "image_std": STD},
    )
    with pytest.raises(CheckpointError, match="differ from preprocessor_config"):
        load_config(folder)
