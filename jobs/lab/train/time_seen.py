"""Is time really seen? Clips played backwards, and clips of one frame repeated."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.demo.demo_archive import SHORT, UNSEEN_SEED
from jobs.demo.drawn_clips import random_encoding, write_frames
from jobs.demo.questions import STILL
from jobs.demo.scores import Scores
from jobs.demo.world import random_scene
from jobs.lab.train.evaluate import VARIANTS, ask, frame_times, frames_of, opened
from pipeline.tasks.tasks import Ask, Tasks

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def time_is_seen(model: Path, *, num_clips: int, seed: int = UNSEEN_SEED + 1) -> Scores:
    """Backwards, every direction turns round; one frame repeated stays still."""
    scores = Scores()
    with opened(model) as flow, tempfile.TemporaryDirectory() as folder:
        for index in range(num_clips):
            for kind, path, question, answer in changed_clips(Path(folder), (seed, index)):
                tasks = Tasks(caption=None, asks=(Ask(question=question),), sampling=SHORT)
                answers = ask(flow, path, tasks).answers
                said = answers[0].answer if answers else ""
                scores.count(kind, said=said, truth=answer, about=path.name)
                path.unlink()
    return scores


def changed_clips(folder: Path, seed: tuple[int, int]) -> Iterator[tuple[str, Path, str, str]]:
    """(kind, file, question, answer) of one scene's two changed clips; none if nothing moves."""
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    shape = next((shape for shape in scene.shapes if shape.direction), None)
    if shape is None or shape.direction is None:
        return
    encoding = random_encoding(rng, scene)
    frames = list(frames_of(scene, encoding, VARIANTS[0]))
    times = frame_times(scene, encoding)
    first = next(index for index, time_s in enumerate(times) if shape.is_visible(time_s))
    question = f"Which way does {shape.name} move?"
    for kind, shown, answer in (
        ("backwards", frames[::-1], OPPOSITE[shape.direction]),
        ("frozen", [frames[first]] * len(frames), STILL),
    ):
        path = folder / f"{kind}{encoding.suffix}"
        write_frames(path, iter(shown), encoding)
        yield kind, path, question, answer
