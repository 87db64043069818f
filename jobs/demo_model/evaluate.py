"""How good a checkpoint is: real files, the real pipeline, clips from seeds never trained on."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from jobs.demo_model.archive import ClipTruth, truth_of
from jobs.demo_model.clips import Encoding, drawn, random_encoding, write_frames
from jobs.demo_model.paint import paint
from jobs.demo_model.questions import ASKING, Question
from jobs.demo_model.scores import Scores
from jobs.demo_model.world import DIRECTIONS, Scene, random_scene
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source

UNSEEN_SEED = 1_000_003  # training counts its seeds from 0
SHORT = Sampling(max_new_tokens=64)  # three sentences are 30
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to make the test clips differ from the training ones."""

    name: str
    change: Callable[[Encoding], Encoding] = lambda encoding: encoding
    is_painted: bool = False  # by the second renderer


VARIANTS = (
    Variant("as trained"),
    Variant("12 fps", lambda e: replace(e, fps=12)),
    Variant("60 fps", lambda e: replace(e, fps=60)),
    Variant("CRF 35", lambda e: replace(e, crf=35)),
    Variant("VP9", lambda e: replace(e, codec="libvpx-vp9", suffix=".webm", crf=35)),
    Variant("second renderer", is_painted=True),
)


def evaluate(
    model: Path, *, num_clips: int, variant: Variant = VARIANTS[0], seed: int = UNSEEN_SEED
) -> Scores:
    """Make the clips one by one, ask everything of each, count what is right."""
    scores = Scores()
    flow = LocalFlow(LocalModel.load(model), options=PlanOptions())
    try:
        with tempfile.TemporaryDirectory() as folder:
            for index in range(num_clips):
                rng = np.random.default_rng((seed, index))
                scene, encoding = random_scene(rng), None
                encoding = variant.change(random_encoding(rng, scene))
                path = Path(folder, f"{index}{encoding.suffix}")
                write_frames(path, frames_of(scene, encoding, variant), encoding)
                truth = truth_of(path.name, scene, encoding, rng, seed=seed)
                truth = replace(truth, questions=one_of_each(scene, rng))
                scores.add(truth, ask(flow, path, truth))
                path.unlink()
    finally:
        flow.close()
    return scores


def frames_of(scene: Scene, encoding: Encoding, variant: Variant) -> Iterator[np.ndarray]:
    times = [index / encoding.fps for index in range(round(scene.duration_s * encoding.fps))]
    if variant.is_painted:
        return paint(scene, times, height=encoding.height, width=encoding.width)
    return drawn(scene, times, encoding)


def one_of_each(scene: Scene, rng: Generator) -> tuple[Question, ...]:
    """A question of every kind that has a clear answer here."""
    pairs = ((kind, make(scene, rng)) for kind, make in ASKING.items())
    return tuple(Question(kind, *pair) for kind, pair in pairs if pair)


def ask(flow: LocalFlow, path: Path, truth: ClipTruth) -> Record:
    """Everything the truth knows, asked as a user would."""
    return asyncio.run(analyse(Source.of(path), tasks_of(truth), flow, video_id=truth.file))


def tasks_of(truth: ClipTruth) -> Tasks:
    return Tasks(
        asks=tuple(Ask(question=question.text) for question in truth.questions),
        grounds=tuple(Ground(query=box.query, times_s=(box.time_s,)) for box in truth.boxes),
    )


def time_is_seen(model: Path, *, num_clips: int, seed: int = UNSEEN_SEED + 1) -> Scores:
    """Backwards, every direction turns round; one frame repeated stays still."""
    scores = Scores()
    flow = LocalFlow(LocalModel.load(model), options=PlanOptions())
    try:
        with tempfile.TemporaryDirectory() as folder:
            for index in range(num_clips):
                rng = np.random.default_rng((seed, index))
                scene = random_scene(rng)
                moving = [s for s in scene.shapes if s.direction in DIRECTIONS]
                if not moving:
                    continue
                encoding = random_encoding(rng, scene)
                frames = list(frames_of(scene, encoding, VARIANTS[0]))
                text = f"Which way does {moving[0].name} move?"
                turned = OPPOSITE[str(moving[0].direction)]
                frozen = next(
                    (
                        f
                        for f, t in zip(frames, _times(scene, encoding), strict=True)
                        if moving[0].is_visible(t)
                    )
                )
                for kind, shown, answer in (
                    ("backwards", frames[::-1], turned),
                    ("frozen", [frozen] * len(frames), "it stays still"),
                ):
                    path = Path(folder, f"{kind}-{index}.mp4")
                    write_frames(path, iter(shown), encoding)
                    tasks = Tasks(caption=None, asks=(Ask(question=text),), sampling=SHORT)
                    record = asyncio.run(analyse(Source.of(path), tasks, flow, video_id=path.name))
                    said = record.answers[0].answer if record.answers else ""
                    scores.count(kind, said=said, truth=answer, about=path.name)
                    path.unlink()
    finally:
        flow.close()
    return scores


def _times(scene: Scene, encoding: Encoding) -> list[float]:
    return [index / encoding.fps for index in range(round(scene.duration_s * encoding.fps))]
