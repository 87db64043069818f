"""A small archive of clips to try vidray on, each with its truth."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from jobs.demo.drawn_clips import Encoding, write_clip
from jobs.demo.questions import QuestionTruth, absent_name, caption, random_question
from jobs.demo.world import Box, Scene, random_scene
from pipeline.config import Sampling
from pipeline.tasks.tasks import Ask, Ground, Tasks

CODECS = (("libx264", ".mp4"), ("libvpx-vp9", ".webm"), ("libx265", ".mp4"), ("libx264", ".mkv"))
NUM_QUESTIONS = 3
TRUTH_FILE = "truth.jsonl"
UNSEEN_SEED = 1_000_003  # training counts its seeds from 0
SHORT = Sampling(max_new_tokens=64)  # three sentences are 30


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTruth:
    """Where a named shape is in the frame at time_s, in source pixels; None: it is not there."""

    query: str
    time_s: float
    box: Box | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTruth:
    """Everything to compare an answer about one clip with."""

    file: str
    seed: int
    width: int
    height: int
    fps: int
    codec: str
    duration_s: float
    caption: str
    questions: tuple[QuestionTruth, ...]
    boxes: tuple[BoxTruth, ...]


def make_archive(
    folder: Path, num_clips: int = 12, seed: int = 0, *, max_side: int = 320
) -> list[tuple[Path, ClipTruth]]:
    """Write clips of several codecs and truth.jsonl into the folder, the same for a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for index in range(num_clips):
        rng = np.random.default_rng((seed, 2, index))
        scene = random_scene(rng, duration_s=float(rng.uniform(2, 6)))
        scale = max_side / max(scene.extent) / 2
        width, height = (2 * round(side * scale) for side in scene.extent)
        codec, suffix = CODECS[index % len(CODECS)]
        encoding = Encoding(width=width, height=height, codec=codec, suffix=suffix, crf=26)
        path = folder / f"clip-{index:03d}{suffix}"
        write_clip(path, scene, encoding)
        clips.append((path, truth_of(path.name, scene, encoding, rng, seed=seed)))
    lines = (json.dumps(asdict(truth)) for _, truth in clips)
    (folder / TRUTH_FILE).write_text("".join(f"{line}\n" for line in lines))
    return clips


def truth_of(
    file: str, scene: Scene, encoding: Encoding, rng: Generator, *, seed: int
) -> ClipTruth:
    """What is right to say of a scene: its caption, some answers, a box and a refusal."""
    questions: list[QuestionTruth] = []
    while len(questions) < NUM_QUESTIONS:
        question = random_question(scene, rng)
        if question is not None and question.text not in {q.text for q in questions}:
            questions.append(question)
    return ClipTruth(
        file=file,
        seed=seed,
        width=encoding.width,
        height=encoding.height,
        fps=encoding.fps,
        codec=encoding.codec,
        duration_s=scene.duration_s,
        caption=caption(scene),
        questions=tuple(questions),
        boxes=tuple(box_truths(scene, encoding, rng)),
    )


def box_truths(scene: Scene, encoding: Encoding, rng: Generator) -> list[BoxTruth]:
    """One shape that can be seen and one name that is no shape of the scene, at one moment."""
    num_frames = round(scene.duration_s * encoding.fps)
    time_s = int(rng.integers(num_frames)) / encoding.fps
    truths = []
    visible = [shape for shape in scene.shapes if shape.is_visible(time_s)]
    if visible:
        shape = visible[int(rng.integers(len(visible)))]
        x0, y0, x1, y1 = scene.unit_box(shape, time_s)
        width, height = encoding.width, encoding.height
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        truths.append(BoxTruth(query=shape.name, time_s=time_s, box=box))
    return [*truths, BoxTruth(query=absent_name(scene, rng), time_s=time_s, box=None)]


def tasks_of(truth: ClipTruth) -> Tasks:
    """Everything the truth knows, asked as a user would."""
    return Tasks(
        sampling=SHORT,
        asks=tuple(Ask(question=question.text) for question in truth.questions),
        grounds=tuple(Ground(query=box.query, times_s=(box.time_s,)) for box in truth.boxes),
    )
