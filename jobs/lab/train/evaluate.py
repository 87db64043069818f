"""How good a checkpoint is: real files, the real pipeline, clips from seeds never trained on."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from jobs.demo.demo_archive import UNSEEN_SEED, tasks_of, truth_of
from jobs.demo.drawn_clips import Encoding, drawn, random_encoding, write_frames
from jobs.demo.questions import ASKING, QuestionTruth
from jobs.demo.scores import Scores
from jobs.demo.world import Scene, random_scene
from jobs.lab.train.paint import paint
from pipeline.analyse import analyse
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source


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
    with opened(model) as flow, tempfile.TemporaryDirectory() as folder:
        for index in range(num_clips):
            rng = np.random.default_rng((seed, index))
            scene = random_scene(rng)
            encoding = variant.change(random_encoding(rng, scene))
            path = Path(folder, f"{index}{encoding.suffix}")
            write_frames(path, frames_of(scene, encoding, variant), encoding)
            truth = truth_of(path.name, scene, encoding, rng, seed=seed)
            truth = replace(truth, questions=one_of_each(scene, rng))
            scores.add(truth, ask(flow, path, tasks_of(truth)))
            path.unlink()
    return scores


@contextmanager
def opened(model: Path) -> Iterator[LocalFlow]:
    """The pipeline in this process, with this checkpoint."""
    flow = LocalFlow(LocalModel.load(model), options=PlanOptions())
    try:
        yield flow
    finally:
        flow.close()


def frames_of(scene: Scene, encoding: Encoding, variant: Variant) -> Iterator[np.ndarray]:
    times = frame_times(scene, encoding)
    if variant.is_painted:
        return paint(scene, times, height=encoding.height, width=encoding.width)
    return drawn(scene, times, encoding)


def frame_times(scene: Scene, encoding: Encoding) -> list[float]:
    return [index / encoding.fps for index in range(round(scene.duration_s * encoding.fps))]


def one_of_each(scene: Scene, rng: Generator) -> tuple[QuestionTruth, ...]:
    """A question of every kind that has a clear answer here."""
    pairs = ((kind, make(scene, rng)) for kind, make in ASKING.items())
    return tuple(QuestionTruth(kind, *pair) for kind, pair in pairs if pair)


def ask(flow: LocalFlow, path: Path, tasks: Tasks) -> Record:
    return asyncio.run(analyse(Source.of(path), tasks, flow, video_id=path.name))
