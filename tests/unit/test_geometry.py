"""Geometry is the checkpoint's: another one goes all the way, and only the family knows its own."""

import ast
import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actors.profile import Profile
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.positions import position_after_video, video_positions
from pipeline.families.qwen2_vl.sampling import QWEN2_VL, load_family
from pipeline.flow import AnyFlow
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.types import Geometry, Grid, SamplingPlan, Size
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import open_media, probe
from pipeline.video.source import Source
from tests.local_actors import flow_over_actors
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder
from tests.tiny_model import Reference, Scene, Tiny, relative_error

ROOT = Path(__file__).parents[2]
OTHERS = [
    Geometry(patch=8, merge=2, temporal=2),
    Geometry(patch=6, merge=3, temporal=4),
    Geometry(patch=16, merge=1, temporal=1),
]
each_other = pytest.mark.parametrize("geometry", OTHERS, ids=str)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clips"), Clip(num_frames=29, fps=12))


def planner(geometry: Geometry) -> Planner:
    """Every frame, of about four tokens."""
    family = replace(QWEN2_VL, geometry=geometry, max_pixels=4 * geometry.pixels_per_token)
    return Planner(family=family, options=PlanOptions(fps=16.0), chunk_tokens=8)


def plan_and_frames(clip: Path, geometry: Geometry) -> tuple[SamplingPlan, torch.Tensor]:
    with open_media(Source.of(clip)) as media:
        plan = planner(geometry).plan(media.info, source_id="it")
        (window,) = plan.windows
        chunks = list(media.read(plan, window))
    assert [chunk.num_steps for chunk in chunks] == [span.num_steps for span in window.chunks]
    return plan, torch.cat([chunk.frames for chunk in chunks])


@each_other
def test_a_plan_is_made_of_whole_tokens_of_its_geometry(clip, geometry):
    plan, frames = plan_and_frames(clip, geometry)
    grid = plan.windows[0].grid
    assert grid.geometry == geometry
    assert grid.t == -(-29 // geometry.temporal)
    assert grid.num_frames == plan.num_frames == len(frames)
    assert frames.shape[1:3] == (grid.size.height, grid.size.width)
    assert grid.size.height % geometry.factor == grid.size.width % geometry.factor == 0
    assert plan.num_tokens == len(frames) // geometry.temporal * (
        frames.shape[1] * frames.shape[2] // geometry.factor**2
    )
    assert 1 <= grid.tokens_per_step <= 4


@each_other
@torch.inference_mode()
def test_the_tower_gives_the_reference_tokens_of_its_geometry(tmp_path, clip, geometry):
    reference = Reference.create(tmp_path, Tiny(seed=5, geometry=geometry))
    assert load_config(tmp_path).vision.geometry == geometry
    plan, frames = plan_and_frames(clip, geometry)
    grid = plan.windows[0].grid
    assert reference.pixels(frames)["grid"].tolist() == [[grid.t, grid.h, grid.w]]
    tokens = reference.model.vision(frames)
    assert tokens.shape[0] == plan.num_tokens
    assert relative_error(tokens, reference.embeddings(Scene((frames,)))) < 1e-5


@each_other
def test_positions_have_a_place_for_every_token_of_its_geometry(clip, geometry):
    plan, _ = plan_and_frames(clip, geometry)
    window = plan.windows[0]
    chunks = [video_positions(7, window.grid, span=span) for span in window.chunks]
    positions = torch.cat(chunks, dim=1)
    assert positions.unique(dim=1).shape[1] == positions.shape[1] == plan.num_tokens
    assert position_after_video(7, window.grid) == int(positions.max()) + 1


def record_of(clip: Path, flow: AnyFlow) -> Record:
    tasks = Tasks(sampling=Sampling(max_new_tokens=4))
    return asyncio.run(analyse(Source.of(clip), tasks, flow, video_id="0a"))


@each_other
def test_a_checkpoint_of_another_geometry_goes_the_whole_way(tmp_path, clip, geometry):
    folder = write_folder(
        tmp_path / "model",
        Tiny(geometry=geometry),
        max_pixels=4 * geometry.pixels_per_token,
    )
    options = PlanOptions(fps=16.0)
    planner = Planner(family=load_family(folder), options=options)
    with closing(LocalFlow(LocalModel.load(folder), options=options)) as flow:
        here = record_of(clip, flow)
    there = record_of(clip, flow_over_actors(folder, planner=planner, profile=Profile()))
    assert here.status == "ok"
    assert here.plan.hash == planner.plan(probe(Source.of(clip)), source_id=here.etag).hash
    (window,) = here.plan.windows
    assert window.width % geometry.factor == window.height % geometry.factor == 0
    assert replace(there, timings=here.timings) == here


def test_a_preprocessor_that_contradicts_the_config_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model", Tiny(geometry=OTHERS[0]))
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size": 14}))
    with pytest.raises(CheckpointError, match="patch_size must be 8, got 14"):
        load_family(folder)


def test_a_silent_config_means_the_published_geometry(tmp_path):
    folder = write_folder(tmp_path / "model")
    for name, path in (("config.json", "vision_config"), ("preprocessor_config.json", None)):
        content = json.loads((folder / name).read_text())
        part = content[path] if path else content
        for key in ("patch_size", "temporal_patch_size", "spatial_merge_size", "merge_size"):
            part.pop(key, None)
        (folder / name).write_text(json.dumps(content))
    assert load_family(folder).geometry == GEOMETRY


def test_equal_grids_of_other_geometries_are_other_plans(clip):
    plan, _ = plan_and_frames(clip, GEOMETRY)
    (window,) = plan.windows
    grid = window.grid
    other = replace(
        window, grid=Grid(grid.t, grid.h, grid.w, Geometry(patch=16, merge=2, temporal=2))
    )
    assert replace(plan, windows=(other,)).hash != plan.hash
    assert replace(plan, windows=(window,)).hash == plan.hash


@pytest.mark.parametrize("sides", [{"patch": 0}, {"merge": 0}, {"temporal": -1}])
def test_a_geometry_is_positive(sides):
    with pytest.raises(ValueError, match="positive"):
        replace(GEOMETRY, **sides)


def test_a_size_that_is_no_whole_token_has_no_grid():
    for size in (Size(30, 28), Size(28, 30), Size(42, 28), Size(28, 0)):
        with pytest.raises(ValueError, match="patches|grid"):
            GEOMETRY.grid(1, size)


# Nobody else knows

NAMES = {"TEMPORAL", "PATCH", "MERGE", "FACTOR", "PIXELS_PER_TOKEN", "MAX_ASPECT_RATIO", "GEOMETRY"}
NUMBERS = {28, 784, 16_384}
KNOWING = ROOT / "pipeline/families"


def knowledge(source: str) -> Iterator[str]:
    """What a module knows of one family's geometry, as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in NUMBERS:
            yield f"{node.lineno}: {node.value}"
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield f"{node.lineno}: {node.id}"
        elif isinstance(node, ast.alias) and node.name in NAMES:
            yield f"{node.lineno}: {node.name}"


def modules() -> list[Path]:
    files = (file for package in ("pipeline", "actors") for file in (ROOT / package).rglob("*.py"))
    return sorted(file for file in files if KNOWING not in file.parents)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_outside_the_family_knows_its_geometry(file):
    assert list(knowledge(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source", ["PATCH = 14", "from a import MERGE", "size // 28", "x = 16_384"]
)
def test_the_scan_sees_what_nobody_should_know(source):
    assert list(knowledge(source))
