"""What headers say of an archive: all of it is listed, and of a large one a fair sample is opened.

Headers are read as everywhere: in sandboxed children, no pixel of them.
"""

import math
import os
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.batch.method import source_of
from jobs.plan.load import NOTHING, Asking, Load, load_of
from pipeline.config import DecodeLimits
from pipeline.errors import BadInput
from pipeline.store.archive import Archive
from pipeline.store.items import Item
from pipeline.types import SamplingPlan
from pipeline.video.plan import Planner
from pipeline.video.reader import probe

SECOND_LOOK = 1.96  # standard errors to either side are 95 of 100 samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A video whose header could be read. chunk_bytes: of its frames, in its largest chunk."""

    load: Load
    view_tokens: int  # of its largest view, without questions
    chunk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """An archive by its headers. codes: why videos of the sample cannot be planned."""

    num_videos: int
    num_sampled: int
    seen: tuple[Scanned, ...]
    codes: Mapping[str, int]
    passed_over: Mapping[str, int]

    @property
    def refused(self) -> str:
        """Those of the sample that cannot be planned, by code; "" if there are none."""
        return ", ".join(f"{count} {code}" for code, count in sorted(self.codes.items()))

    @property
    def is_whole(self) -> bool:
        """Whether every header was opened."""
        return self.num_sampled == self.num_videos

    @property
    def load(self) -> Load:
        """Of all videos, those that were not opened taken to be like the sample."""
        share = self.num_videos / max(self.num_sampled, 1)
        return sum((each.load for each in self.seen), NOTHING) * share

    @property
    def uncertainty(self) -> float:
        """Of the tokens, to either side, as a share: what 95 of 100 samples keep within."""
        tokens = [each.load.tokens for each in self.seen] + [0.0] * sum(self.codes.values())
        mean = statistics.fmean(tokens) if tokens else 0.0
        if self.is_whole or len(tokens) < 2 or not mean:
            return 0.0
        unseen = math.sqrt(1 - self.num_sampled / self.num_videos)
        return SECOND_LOOK * unseen * statistics.stdev(tokens) / math.sqrt(len(tokens)) / mean

    @property
    def longest(self) -> Load:
        """Of the video that asks for most tokens."""
        return max((each.load for each in self.seen), key=lambda load: load.tokens, default=NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """Opens headers. asking: what is asked of an item."""

    planner: Planner
    limits: DecodeLimits
    asking: Callable[[Item], Asking]
    archive: Callable[[str], Archive]  # copies go into this folder
    copies: Path | None = None

    def scan(self, items: Iterable[Item], *, most: int, passed_over: Mapping[str, int]) -> Scan:
        """List everything, open the headers of at most so many. passed_over: of that listing."""
        num_videos, sample = sampled(items, size=most)
        with (
            tempfile.TemporaryDirectory(prefix="vidray-", dir=self.copies) as folder,
            ThreadPoolExecutor(os.cpu_count() or 1) as threads,
        ):
            archive = self.archive(folder)
            found = list(threads.map(lambda item: self._seen(archive, item), sample))
        return Scan(
            num_videos=num_videos,
            num_sampled=len(sample),
            seen=tuple(each for each in found if isinstance(each, Scanned)),
            codes=Counter(each for each in found if isinstance(each, str)),
            passed_over=passed_over,
        )

    def _seen(self, archive: Archive, item: Item) -> Scanned | str:
        """What is seen, or the code of why there is nothing."""
        try:
            with archive.open(item) as copy:
                source = source_of(item, path=Path(copy.path))
                media = probe(source, self.limits)
                planner = self.planner.of(source)
                plan = planner.plan(media, source_id=item.video_id)
                size_bytes = float(copy.info.size_bytes)
                load = load_of(
                    media,
                    plan,
                    self.asking(item),
                    still_at=lambda time_s: planner.plan_still(
                        media, time_s, source_id=item.video_id
                    ),
                )
        except BadInput as error:
            return str(error.code)
        return Scanned(
            load=replace(load, size_bytes=size_bytes),
            view_tokens=max(window.grid.num_tokens for window in plan.windows),
            chunk_bytes=_largest_chunk_bytes(plan),
        )


def sampled(items: Iterable[Item], *, size: int) -> tuple[int, list[Item]]:
    """How many items there are, and `size` of them, each as likely as any other."""
    chance = random.Random(0)  # noqa: S311 - the same sample each time is what is wanted
    sample: list[Item] = []
    count = 0
    for count, item in enumerate(items, start=1):  # noqa: B007 - the last count is the result
        if len(sample) < size:
            sample.append(item)
        elif (place := chance.randrange(count)) < size:
            sample[place] = item
    return count, sample


def _largest_chunk_bytes(plan: SamplingPlan) -> int:
    return max(
        chunk.num_steps * window.grid.geometry.temporal * window.grid.size.num_pixels * 3
        for window in plan.windows
        for chunk in window.chunks
    )
