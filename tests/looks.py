"""What a plan's frames show: the number in each picture, read in every way there is."""

from pathlib import Path

import numpy as np

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.video.libraries import Reader
from pipeline.video.reader import open_media
from pipeline.video.seeks import Seek
from pipeline.video.source import Source
from tests.media_factory import read_barcode
from tests.plans import make_plan

Way = tuple[Reader, Seek, int | None, int]  # reader, seek, children, threads
WAYS: tuple[Way, ...] = (
    ("pyav", "auto", 1, 1),
    ("pyav", "auto", None, 2),
    ("pyav", "never", 1, 1),
    ("pyav", "never", 4, 1),
    ("pyav", "always", 1, 1),
    ("pyav", "auto", 4, 1),
    ("decord", "auto", 1, 1),
)
Seen = list[tuple[float, int, int | None, bool]]  # time, place of the frame, number in it, damaged


def look(path: Path, way: Way, *, fps: float, start_s: float | None = None) -> Seen:
    """Every planned frame, read in this way."""
    reader, seek, children, threads = way
    with open_media(Source.of(path), DecodeLimits(threads=threads)) as media:
        plan = make_plan(media.info, source_id="test", fps=fps, start_s=start_s)
        seen: Seen = []
        for window in plan.windows:
            chunks = list(media.read(plan, window, reader=reader, seek=seek, children=children))
            places = np.searchsorted(media.info.pts, window.frame_pts).tolist()
            pictures = [read_barcode(frame.numpy()) for chunk in chunks for frame in chunk.frames]
            damage = [mark for chunk in chunks for mark in chunk.is_damaged]
            seen += zip(window.times_s, places, pictures, damage, strict=True)
        return seen


def look_or_refusal(path: Path, way: Way, *, fps: float) -> Seen:
    """As look; of decord, which may refuse by name, nothing then."""
    try:
        return look(path, way, fps=fps)
    except BadInput as error:
        is_named = error.code is FailureCode.NOT_DECODABLE and "not with decord" in error.detail
        if way[0] != "decord" or not is_named:
            raise
        return []
