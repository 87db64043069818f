"""Boxes of a record drawn on the frames they were found on, one PNG for each time."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.records import Box, Record
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import open_media
from pipeline.video.source import Source

COLOURS = ("#ff4040", "#40c040", "#4080ff", "#ffb000", "#d050ff", "#00c8c8")
MAX_STEM_BYTES = 100


def draw_boxes(source: Source, record: Record, *, folder: Path, number: int) -> Iterator[Path]:
    """Write the frames with boxes into `folder`; yields each file once it is complete.

    number: keeps clips of the same name apart. OSError if the folder cannot take the file.
    """
    by_time = defaultdict[float, list[Box]](list)
    for box in record.boxes:
        if box.outcome == "found":
            by_time[box.time_s].append(box)
    if not by_time:
        return
    folder.mkdir(parents=True, exist_ok=True)
    queries = list(dict.fromkeys(box.query for box in record.boxes))
    for time_s, boxes in by_time.items():
        picture = _frame(source, record, time_s)
        for box in boxes:
            _draw(picture, box, colour=COLOURS[queries.index(box.query) % len(COLOURS)])
        file = folder / f"{number:03d}-{_stem(source.path)}-{time_s:.2f}s.png"
        _save(picture, file)
        yield file


def _frame(source: Source, record: Record, time_s: float) -> Image.Image:
    """The frame shown at time_s, at the size of the source as displayed."""
    with open_media(source) as media:
        pixels = max(media.info.width * media.info.height, QWEN2_VL.geometry.pixels_per_token)
        options = PlanOptions(min_pixels=pixels, max_pixels=pixels)
        planner = Planner(family=QWEN2_VL, options=options)
        plan = planner.plan_still(media.info, time_s, source_id=record.etag or "")
        chunk = next(iter(media.read(plan, plan.windows[0])))
        picture = Image.fromarray(chunk.frames[0].numpy())
        return picture.resize((media.info.width, media.info.height), Image.Resampling.BICUBIC)


def _draw(picture: Image.Image, box: Box, *, colour: str) -> None:
    """The box as a frame that lies inside it, and its query above or, at the top, within."""
    canvas = ImageDraw.Draw(picture)
    width = max(2, min(picture.size) // 160)
    x0, y0, x1, y1 = (round(edge or 0.0) for edge in (box.x0, box.y0, box.x1, box.y1))
    canvas.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=width)
    font = ImageFont.load_default(size=max(10, min(picture.size) // 24))
    place = (x0 + width, y0)
    anchor = "ld" if y0 > canvas.textbbox((0, 0), box.query, font=font)[3] + 2 else "la"
    back = canvas.textbbox(place, box.query, font=font, anchor=anchor)
    canvas.rectangle(back, fill=colour)
    canvas.text(place, box.query, font=font, fill="black", anchor=anchor)


def _save(picture: Image.Image, file: Path) -> None:
    """Whole or not at all: a full disk leaves no half picture behind."""
    part = file.with_name(f".{file.name}.part")
    try:
        picture.save(part, format="PNG")
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _stem(path: Path) -> str:
    """The file's name as far as it is UTF-8 and short enough to take more."""
    name = path.stem.encode("utf-8", "replace")[:MAX_STEM_BYTES]
    return name.decode("utf-8", "ignore")
