"""A comparison is only worth its numbers if both sides do the same work."""

import asyncio
import base64
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actors.profile import Profile
from jobs.lab.bench.bench_servers import as_data
from jobs.lab.bench.bench_uploads import padded
from jobs.lab.bench.key_server import PAGE, key_of, key_server
from jobs.lab.bench.ray_data import TwinDecoder, TwinEncoder, TwinReader
from jobs.serve.media_facts import media_facts
from jobs.timing import medians
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.local import LocalFlow, LocalModel
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import find_items
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import probe
from pipeline.video.source import Source
from tests.media_factory import Clip, make
from tests.tiny_folder import MAX_PIXELS, write_folder

TASKS = Tasks(asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=6))
OPTIONS = PlanOptions(max_pixels=MAX_PIXELS)


def test_operators_that_torchvision_has_are_not_defined_again() -> None:
    """As beside a torch for CUDA; to define one twice aborts the process."""
    program = """
import torch
theirs = torch.library.Library("torchvision", "DEF")
theirs.define("nms(Tensor theirs) -> Tensor")
from jobs.lab.bench.peers import make_torchvision_importable
make_torchvision_importable()
print(torch.ops.torchvision.nms.default._schema)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "torchvision::nms(Tensor theirs) -> Tensor\n"


@pytest.mark.parametrize("num_keys", [1, PAGE, 2 * PAGE + 500])
def test_a_generated_listing_names_every_key_once(num_keys: int) -> None:
    with key_server(num_keys) as endpoint:
        found = [item.uri for item in find_items("s3://keys", s3=S3Config(endpoint=endpoint))]
    assert found == [f"s3://keys/{key_of(number)}" for number in range(num_keys)]


def test_the_ray_data_twin_writes_the_words_of_the_flow(tmp_path: Path) -> None:
    checkpoint = write_folder(tmp_path / "model")
    clips = [
        make(tmp_path, Clip(num_frames=num_frames, fps=12), f"clip-{num_frames}")
        for num_frames in (48, 96)
    ]
    planner = Planner(family=load_family(checkpoint), options=OPTIONS)
    batch = _gathered([next(TwinReader(planner, TASKS)({"path": [str(clip)]})) for clip in clips])
    written = TwinDecoder(checkpoint, Profile())(TwinEncoder(checkpoint, 1)(batch))
    assert written["answers"] == [_words_of_the_flow(checkpoint, clip) for clip in clips]


def _gathered(rows: list[dict]) -> dict:
    """One batch of single rows; arrays of several shapes stand side by side, as Ray Data has it."""
    batch = {name: np.empty(len(rows), dtype=object) for name in rows[0]}
    for place, row in enumerate(rows):
        for name, (value,) in row.items():
            batch[name][place] = value
    return batch


def _words_of_the_flow(checkpoint: Path, clip: Path) -> list[str]:
    with closing(LocalFlow(LocalModel.load(checkpoint), options=OPTIONS)) as flow:
        record = asyncio.run(analyse(Source.of(clip), TASKS, flow, video_id="0a"))
    return [record.captions[0].text, record.answers[0].answer]


def test_a_padded_clip_is_so_large_and_the_same_video(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=24, fps=12), "clip")
    film = padded(clip, tmp_path / "film.mp4", 5_000_000)
    assert film.stat().st_size == 5_000_000
    assert media_facts(probe(Source.of(film))) == media_facts(probe(Source.of(clip)))


def test_what_nobody_has_seen_before_is_the_same_video_in_other_bytes(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=24, fps=12), "clip")
    films = []
    for number in range(2):
        film = tmp_path / f"{number}.mp4"
        film.write_bytes(base64.b64decode(as_data(clip, number).partition(",")[2]))
        films.append(film)
    assert films[0].read_bytes() != films[1].read_bytes()
    facts = [media_facts(probe(Source.of(each))) for each in (clip, *films)]
    assert facts[0] == facts[1] == facts[2]


def test_candidates_take_turns_and_the_middle_round_counts() -> None:
    order = []

    def candidate(name: str, seconds: list[float]):
        def run() -> float:
            order.append(name)
            return seconds.pop(0)

        return run

    candidates = {"a": candidate("a", [9.0, 1, 5, 2]), "b": candidate("b", [0.0, 3, 4, 8])}
    assert medians(candidates, rounds=3) == {"a": 2, "b": 4}
    assert order == ["a", "b"] * 4
