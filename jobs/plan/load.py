"""What a video asks of every stage, from its plan: counted, not guessed, but for its words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from jobs.plan.operations import prefill_flops, tower_flops
from pipeline.config import EngineLimits, ModelConfig
from pipeline.prompts import LINE_SLACK, PROMPT_SLACK
from pipeline.tasks.requests import View, make_views
from pipeline.tasks.tasks import Tasks
from pipeline.types import MediaInfo, SamplingPlan, Window
from pipeline.video.seeks import START, cut_stretches

PROMPT_TOKENS = 24  # of a question around its words
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Loads of several videos add up.

    size_bytes: of files. seconds: of video that are looked at. frames, tokens: of the plan, as rows
    and the dry run count them; stills that are looked at for boxes come on top in everything else.
    pixels: that are decoded. words: tokens written. kv_tokens: of the views, with their questions.
    """

    videos: float = 1.0
    size_bytes: float = 0.0
    seconds: float = 0.0
    frames: float = 0.0
    tokens: float = 0.0
    pixels: float = 0.0
    chunks: float = 0.0
    views: float = 0.0
    tower_flops: float = 0.0
    prefill_flops: float = 0.0
    answers: float = 0.0
    words: float = 0.0
    kv_tokens: float = 0.0

    def __add__(self, other: "Load") -> "Load":
        return Load(**{each: getattr(self, each) + getattr(other, each) for each in _NAMES})

    def __mul__(self, times: float) -> "Load":
        return Load(**{each: getattr(self, each) * times for each in _NAMES})


_NAMES = tuple(each.name for each in fields(Load))
NOTHING = Load(videos=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked of a video, by which model. words: that an answer takes.

    max_parts: texts of windows that one prompt brings together, as Prompts.max_parts.
    """

    config: ModelConfig
    tasks: Tasks
    words: float
    max_parts: int

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        tasks: Tasks,
        *,
        words: float | None = None,
        question_tokens: int = EngineLimits().question_tokens,
    ) -> "Asking":
        """Without a tokenizer. words: a quarter of what is allowed, if not given."""
        new = tasks.sampling.max_new_tokens
        return cls(
            config=config,
            tasks=tasks,
            words=words or max(new / 4, 1.0),
            max_parts=max(2, (question_tokens - new - PROMPT_SLACK) // (new + LINE_SLACK)),
        )


def load_of(
    media: MediaInfo,
    plan: SamplingPlan,
    asking: Asking,
    *,
    still_at: Callable[[float], SamplingPlan],
) -> Load:
    """Of one video. still_at: the plan of the one frame shown at a time."""
    views = make_views(plan, asking.tasks, still_at=still_at)
    total = sum((_of_view(media, view, asking) for view in views), NOTHING)
    total += _of_texts(plan, asking)
    windows = plan.windows
    return replace(
        total,
        videos=1.0,
        seconds=windows[-1].end_s - windows[0].start_s,
        frames=float(plan.num_frames),
        tokens=float(plan.num_tokens),
    )


def _of_view(media: MediaInfo, view: View, asking: Asking) -> Load:
    grid, config = view.window.grid, asking.config
    prompts = [_prompt_tokens(request.prompt) for request in view.requests]
    return Load(
        videos=0.0,
        pixels=num_decoded(media, view.window) * media.coded_width * media.coded_height,
        chunks=len(view.window.chunks),
        views=1.0,
        tower_flops=tower_flops(config, grid),
        prefill_flops=prefill_flops(config, grid.num_tokens)
        + sum(prefill_flops(config, each, num_before=grid.num_tokens) for each in prompts),
        answers=len(prompts),
        words=len(prompts) * asking.words,
        kv_tokens=grid.num_tokens + sum(prompts) + len(prompts) * asking.words,
    )


def _of_texts(plan: SamplingPlan, asking: Asking) -> Load:
    """Of bringing windows' answers together, in as many rounds as there are."""
    num_tasks = (asking.tasks.caption is not None) + len(asking.tasks.asks)
    total, parts = NOTHING, len(plan.windows) if num_tasks else 1
    while parts > 1:
        prompts = -(-parts // asking.max_parts)
        length = round(PROMPT_TOKENS + min(parts, asking.max_parts) * (asking.words + 32))
        total += Load(
            videos=0.0,
            prefill_flops=num_tasks * prompts * prefill_flops(asking.config, length),
            answers=num_tasks * prompts,
            words=num_tasks * prompts * asking.words,
        )
        parts = prompts
    return total


def num_decoded(media: MediaInfo, window: Window) -> int:
    """Frames that a reader decodes to show this window's: from keyframes on, where it pays."""
    wanted = np.unique(np.searchsorted(media.pts, np.unique(window.frame_pts)))
    stretches = cut_stretches(wanted.tolist(), is_key=media.is_key)
    return sum(_length(stretch.key, stretch.wanted) for stretch in stretches)


def _length(key: int, wanted: Sequence[int]) -> int:
    return wanted[-1] + 1 - (0 if key == START else key)


def _prompt_tokens(prompt: str) -> int:
    return PROMPT_TOKENS + len(prompt) // CHARS_PER_TOKEN
