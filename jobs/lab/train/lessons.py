"""Clips with many questions each, as ids: what the decoder learns from."""

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from numpy.random import Generator

from jobs.demo.questions import (
    QuestionTruth,
    caption_question,
    find_question,
    random_question,
)
from jobs.demo.render import render
from jobs.demo.world import Scene, random_scene
from jobs.lab.train.dataset import random_size
from jobs.lab.train.degrade import degrade
from jobs.lab.train.gaze import Gaze, Look
from jobs.lab.train.targets import CELL, TokenTargets, token_targets
from jobs.lab.train.vocabulary import encode_marked
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.model.tokenizer import Tokenizer
from pipeline.types import Grid

STEPS_PER_BATCH = 20  # temporal patches, whatever the clips' length
MAX_CLIPS = 10
NUM_QUESTIONS = 7  # of each clip, besides the caption
STILL_SHARE = 0.25
LATE_SHARE = 0.5  # of moving clips: drawn anew, once, if nothing appears; they are the hard ones


@dataclass(frozen=True, slots=True)
class LessonSegment:
    """One question and its answer, as the ids that follow a video, and where to look meanwhile."""

    kind: str
    ids: list[int]
    answer_start: int
    asked: list[Look] = field(default_factory=list)
    answered: list[Look] = field(default_factory=list)


@dataclass(slots=True)
class ClipBatch:
    """Clips of one size and length, and what is asked of each."""

    grid: Grid
    frames: np.ndarray  # (B, T, H, W, 3) uint8; empty when not drawn
    targets: TokenTargets  # (B, M, ...)
    asked: list[list[LessonSegment]]


def make_clips(
    seed: int,
    index: int,
    *,
    tokenizer_json: str,
    longest: tuple[tuple[int, int], ...],
    is_drawn: bool = True,
) -> ClipBatch:
    """Batch number `index` of a seed's endless series.

    longest: (index, temporal patches) pairs: from that batch on, clips are up to so long.
    is_drawn: False leaves the frames out, for who learns from the targets alone.
    """
    rng = np.random.default_rng((seed, 1, index))
    encoder = _encoder(tokenizer_json)
    limit = max((patches for start, patches in longest if index >= start), default=10)
    is_still = rng.random() < STILL_SHARE
    num_steps = 1 if is_still else int(rng.integers(2, limit + 1))
    size, aspect = random_size(rng)
    frames, targets, asked = [], [], []
    for _ in range(min(MAX_CLIPS, STEPS_PER_BATCH // num_steps)):
        low, high = max(2.0, num_steps - 0.45), min(10.0, num_steps + 0.45)
        duration_s = float(rng.uniform(low, high)) if not is_still else 2.0
        is_repeated = not is_still and rng.random() < 0.03  # one frame, again and again
        draw = partial(
            random_scene,
            rng,
            aspect=aspect,
            duration_s=duration_s,
            is_still=is_still or is_repeated,
        )
        scene = draw()
        if rng.random() < LATE_SHARE and all(shape.appears_s is None for shape in scene.shapes):
            scene = draw()
        times = [0.0, 0.0] if is_still else sample_times(duration_s, 2 * num_steps)
        if is_drawn:
            drawn = render(scene, times, height=size.height, width=size.width, colour_jitter=14)
            frames.append(degrade(drawn, rng))
        steps = [
            token_targets(scene, pair, rows=size.height // CELL, columns=size.width // CELL)
            for pair in zip(times[::2], times[1::2], strict=True)
        ]
        targets.append(TokenTargets.join(steps))
        questions = draw_questions(scene, rng, is_still=is_still)
        asked.append([encoder.segment(question) for question in questions])
    grid = GEOMETRY.grid(num_steps, size)
    pictures = np.stack(frames) if is_drawn else np.empty(0, np.uint8)
    return ClipBatch(grid, pictures, TokenTargets.stack(targets), asked)


def sample_times(duration_s: float, num_frames: int) -> list[float]:
    """The times at which the pipeline's plan shows a clip to the model."""
    return [index * duration_s / num_frames for index in range(num_frames)]


def draw_questions(scene: Scene, rng: Generator, *, is_still: bool) -> list[QuestionTruth]:
    """The caption and NUM_QUESTIONS more; boxes are only asked for on stills."""
    questions = [caption_question(scene, is_still=is_still)]
    while len(questions) <= NUM_QUESTIONS:
        wants_box = is_still and rng.random() < 0.75
        question = find_question(scene, 0.0, rng) if wants_box else random_question(scene, rng)
        if question is not None:
            questions.append(question)
    return questions


class SegmentEncoder:
    """Questions and answers to ids, in the pipeline's own layout."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._layout = ChatLayout(tokenizer)
        self._gaze = Gaze(tokenizer)

    def segment(self, question: QuestionTruth) -> LessonSegment:
        asked = self._layout.question(question.text)
        answer = [
            *encode_marked(self._tokenizer, question.answer),
            self._tokenizer.ids.im_end,
        ]
        return LessonSegment(
            question.kind,
            [*asked, *answer],
            answer_start=len(asked),
            asked=self._gaze.while_asked(asked, len(answer)),
            answered=self._gaze.while_answered(asked, answer),
        )


@cache
def _encoder(tokenizer_json: str) -> SegmentEncoder:
    return SegmentEncoder(Tokenizer(tokenizer_json))
