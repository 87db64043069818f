"""Loading costs a rank its own shard of memory, not the checkpoint's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.config import GIB, MIB
from pipeline.families.qwen2_vl.model import Qwen2VL
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import load_config
from tests.tiny_model import Tiny, hub_config

# 1.4 G parameters in two files.
BIG = Tiny(
    num_layers=5, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14_336,
    vocab_size=32_000,
)  # fmt: skip
NUM_FILES = 2
BLOCK_BYTES = 16 * MIB

# What a rank does, watched by a thread of its own. Python and torch come before: 150 MB of their
# own with a torch for CPUs, 300 with one for CUDA.
RANK = """
import json, sys, threading
from pathlib import Path
import torch
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import load_model

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

torch.set_num_threads(1)
before, peak, done = anonymous_bytes(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous_bytes())

watcher = threading.Thread(target=watch)
watcher.start()
path, rank = Path(sys.argv[1]), int(sys.argv[2])
model = load_model(path, parallel=TensorParallel(rank, 2), dtype=torch.bfloat16)
done.set()
watcher.join()
first = model.language.layers[-1].mlp.down_proj.weight[1, :4].view(torch.int16).tolist()
print(json.dumps({"before": before, "peak": peak, "after": anonymous_bytes(), "first": first}))
"""


def write_random_checkpoint(folder: Path) -> int:
    """A hub folder of random bits in bfloat16, in NUM_FILES files; returns its size in bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hub_config(BIG)))
    with torch.device("meta"):
        parts = Qwen2VL(BIG.config).checkpoint_parts()
        shapes = {part.tensor: part.shape for _, part in parts}
    names = sorted(shapes)
    half = len(names) // NUM_FILES
    weight_map: dict[str, str] = {}
    for number, chunk in enumerate((names[:half], names[half:])):
        file = f"model-{number + 1:05d}-of-{NUM_FILES:05d}.safetensors"
        weight_map |= dict.fromkeys(chunk, file)
        write_random_file(folder / file, {name: shapes[name] for name in chunk})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sum(file.stat().st_size for file in folder.iterdir())


def write_random_file(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, place = {}, 0
    for name, shape in shapes.items():
        stop = place + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(header).encode()
    block = torch.randint(0, 256, (BLOCK_BYTES,), dtype=torch.uint8).numpy().tobytes()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, place, BLOCK_BYTES):
            stream.write(block[: place - start])


def shard_bytes(path: Path, rank: int) -> int:
    with torch.device("meta"):
        model = Qwen2VL(load_config(path), TensorParallel(rank, 2))
    return 2 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_ranks_load_two_gigabytes_each_within_its_own_shard_plus_15_percent(tmp_path):
    path = tmp_path / "model"
    size_bytes = write_random_checkpoint(path)
    assert size_bytes >= 2 * GIB
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, path, str(rank)], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    reports = [json.loads(rank.communicate()[0]) for rank in ranks]
    for rank, report in enumerate(reports):
        shard = shard_bytes(path, rank)
        assert shard < 0.52 * size_bytes
        assert report["after"] - report["before"] >= 0.98 * shard, "every row was written"
        added = report["peak"] - report["before"]
        assert added <= 1.15 * shard, f"{report} for a shard of {shard} bytes"
    assert reports[0]["first"] != reports[1]["first"]
