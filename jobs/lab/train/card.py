"""The model card that travels with the weights."""

from collections.abc import Mapping

INTRODUCTION = """\
---
license: apache-2.0
pipeline_tag: video-text-to-text
---
# vidray-demo

A Qwen2-VL of 3.6 million parameters that knows one thing: coloured shapes that move, appear and
disappear. It exists so that vidray can be tried, and tested end to end, with nothing to download.
For videos of the world, use Qwen2-VL.

## What it knows
One to three circles, squares, triangles and stars in eight colours on dull backgrounds, in clips of
2 to 10 seconds. It captions them, answers eight kinds of question word for word as in
`jobs/demo/questions.py`, and finds a named shape on a picture.

## How it was made
Trained from nothing on scenes drawn by `jobs/demo`, on two CPU cores:

    vidray demo-model train FOLDER
    vidray demo-model train FURTHER --from FOLDER/weights --together-steps 5500
    vidray demo-model train FURTHEST --from FURTHER/weights \\
        --together-steps 5000 --seed 5 --threads 1

Side by side, the language model alone, on the facts of a scene in place of vision tokens, and the
tower alone, to write those facts; then both on clips, with many questions on each. A few attention
heads are shown which tokens the words mean, and which of them are in the last step. Frames are
drawn at the size the model sees them and degraded as a codec would; no file from anywhere was used.
These weights took about five and a half hours. The lessons about whole boxes, events and time
joined part-way, so today's first two commands would give other weights than they did. The third ran
with the code of commit a5940c7, on the weights before it; its world kept every event 1.25 s from a
clip's ends, so clips under 2.5 s had none.

## Limits
- Anything but its shapes is answered with one of its own words. It never says that it doesn't know.
- Frames are shown to it at no more than 40 tokens (about 168 x 168 pixels); boxes are written in
  steps of a hundredth of a side.
- Its rotary base is 1,000 and its frequencies are dealt 2, 3, 11 to time, height and width: clips
  are short and grids are small.
"""


def card(figures: Mapping[str, float], *, num_clips: int) -> str:
    """The card, with scores if there are any."""
    if not figures:
        return INTRODUCTION
    rows = [f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in figures.items()]
    head = f"## Scores\n`vidray demo-model eval --clips {num_clips}`, clips from unseen seeds:\n"
    return "\n".join([INTRODUCTION, head, "| figure | score |", "|---|---|", *rows, ""])
