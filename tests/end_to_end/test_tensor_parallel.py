"""Two, four and eight ranks, real processes over gloo, give what one process gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import Segment
from pipeline.model.packed_weights import pack
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import load_model
from tests.tiny_folder import write_folder
from tests.tiny_model import Scene, Tiny, random_frames, random_ids, relative_error, tiny_model

NUM_TOKENS = 64
# Two key-value heads: four ranks copy them. 301 tokens: no vocabulary shard is full but the first.
SHAPES = {
    "untied": Tiny(seed=21, vision_heads=4),
    "tied": Tiny(seed=22, vision_heads=4, num_heads=8, tied=True),
}
# Of 72B all that is split: 80 layers, 64 heads, 8 key-value heads. Each rank holds one of the last.
SHRUNKEN_72B = Tiny(
    seed=23, num_layers=80, num_heads=64, num_kv_heads=8, head_dim=8, vision_heads=8
)
NUM_TOKENS_72B = 6
SCENE = Scene((random_ids(5), random_frames(12, 2, 2), random_ids(7, seed=3)))


@torch.inference_mode()
def describe_and_answer(
    model: Qwen2VL, num_tokens: int = NUM_TOKENS
) -> tuple[torch.Tensor, list[int]]:
    """Prefill in two chunks, then greedy tokens: (logits of the prompt, tokens)."""
    language, positions = model.language, SCENE.positions
    embeddings = SCENE.embeddings(model)
    cache = language.new_cache(len(embeddings) + num_tokens)
    language(embeddings[:13], positions[:, :13], [Segment(cache, 13, 0)])
    hidden = language(embeddings[13:], positions[:, 13:], [Segment(cache, len(embeddings) - 13)])
    logits = language.logits(hidden)
    tokens = [int(logits[-1].argmax())]
    for index in range(num_tokens - 1):
        place = text_positions(SCENE.next_position + index, 1)
        hidden = language(language.embed(torch.tensor(tokens[-1:])), place, [Segment(cache, 1)])
        tokens.append(int(language.logits(hidden)[-1].argmax()))
    return logits, tokens


@contextmanager
def joined(rank: int, size: int, folder: Path) -> Iterator[TensorParallel]:
    """This process as one of `size` ranks that meet in `folder`."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "rendezvous"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    yield TensorParallel(rank, size, dist.group.WORLD)
    dist.barrier()
    dist.destroy_process_group()


def run_rank(rank: int, size: int, folder: Path) -> None:
    with joined(rank, size, folder) as parallel:
        models = {name: tiny_model(shape, parallel) for name, shape in SHAPES.items()}
        answers = {name: describe_and_answer(model) for name, model in models.items()}
        torch.save(answers, folder / f"rank-{rank}.pt")


def run_rank_of_72b(rank: int, size: int, folder: Path) -> None:
    with joined(rank, size, folder) as parallel:
        model = load_model(folder / "model", parallel=parallel)
        for half in (model.vision, model.language):
            pack(half, min_elements=0)  # as ranks run on a CPU, whatever the size of their shards
        torch.save(describe_and_answer(model, NUM_TOKENS_72B), folder / f"rank-{rank}.pt")


@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_says_what_one_process_says(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(run_rank, args=(size, tmp_path), nprocs=size)
    for name, shape in SHAPES.items():
        expected_logits, expected_tokens = describe_and_answer(tiny_model(shape))
        assert len(set(expected_tokens)) > 10  # one token repeated would prove nothing
        for rank in range(size):
            logits, tokens = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)[name]
            assert relative_error(logits, expected_logits) < 1e-5
            assert tokens == expected_tokens


@pytest.mark.timeout(300)
def test_a_shrunken_72b_on_eight_ranks_says_what_one_process_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    write_folder(tmp_path / "model", SHRUNKEN_72B)
    mp.spawn(run_rank_of_72b, args=(8, tmp_path), nprocs=8)
    expected_logits, expected_tokens = describe_and_answer(
        load_model(tmp_path / "model"), NUM_TOKENS_72B
    )
    assert len(set(expected_tokens)) > NUM_TOKENS_72B // 2
    for rank in range(8):
        logits, tokens = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        assert relative_error(logits, expected_logits) < 1e-4
        assert tokens == expected_tokens
