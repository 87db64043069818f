"""Trials of a few drawn clips, short ones and long ones, through a real fleet on this machine."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from actors.fleet import Fleet
from actors.launch import start_fleet
from actors.profile import Profile
from jobs.demo.demo_archive import CODECS
from jobs.demo.drawn_clips import Encoding, write_clip
from jobs.demo.world import random_scene
from jobs.exits import run_until_stopped
from jobs.plan.calibration import Calibration, CalibrationTrial, calibration_of, keep
from jobs.plan.load import NOTHING, Asking, Load, load_of
from jobs.plan.processes import Meter, Used, processes_of, sampled_peak
from pipeline.config import Sampling
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.tokenizer import Tokenizer
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Tasks
from pipeline.video.plan import Planner
from pipeline.video.reader import probe
from pipeline.video.source import Source

SHORT_S, LONG_S = 2.0, 12.0
NUM_SHORT, NUM_LONG, ROUNDS = 24, 8, 2
SIDE = 320
ONE, MANY = 1, 64  # tokens that an answer may have


def calibrate(
    folder: Path, profile: Profile, console: Console, *, pilot: Sequence[Source], tasks: Tasks
) -> Calibration:
    """Measure, keep and return. A minute, most of it Ray's start; longer with a large model.

    pilot: some of the videos to be planned for, asked these tasks, to see how long answers are.
    """
    with calibrator(folder, profile, console) as trials:

        async def run() -> Calibration:
            await trials.begin(pilot, tasks)
            for _ in range(ROUNDS):
                await trials.round()
            return trials.keep()

        return run_until_stopped(run())


@dataclass(slots=True)
class Calibrator:
    """A fleet that trials go through. words: of an answer of the pilot, if there was any."""

    fleet: Fleet
    folder: Path
    profile: Profile
    short: Sequence[Source]
    long: Sequence[Source]
    words: float | None = None
    _trials: list[CalibrationTrial] = field(default_factory=list)
    _peak_bytes: int = 0
    _process_ids: dict[str, int] = field(default_factory=dict)

    async def begin(self, pilot: Sequence[Source], tasks: Tasks) -> None:
        """Wait for the fleet, warm it up with the pilot and the clips."""
        async for _ in self.fleet.starting():
            pass
        self._process_ids = await processes_of(self.fleet)
        self.words = _mean(self.count(await self.analyse(pilot, tasks)))
        await self.analyse([*self.short, *self.long], _tasks(MANY))

    async def round(self) -> None:
        """Every kind of trial once."""
        async with sampled_peak() as peak:
            for clips in (self.short, self.long):
                for words in (ONE, MANY):
                    records, used = await self.measured(clips, _tasks(words))
                    written = float(sum(self.count(records)))
                    load = replace(self._load(clips), words=written)
                    self._trials.append(CalibrationTrial(load, used))
        self._peak_bytes = max(self._peak_bytes, peak.num_bytes)

    def keep(self) -> Calibration:
        """What all rounds so far say; in the user's cache from now on."""
        found = calibration_of(self._trials, memory_bytes=float(self._peak_bytes))
        found = replace(found, words=self.words or found.words)
        keep(found, self.folder, self.profile)
        return found

    async def measured(self, clips: Sequence[Source], tasks: Tasks) -> tuple[list[Record], Used]:
        """Their records, and what it took to make them."""
        meter = Meter(self._process_ids)
        records = await self.analyse(clips, tasks)
        return records, meter.read()

    async def analyse(self, clips: Sequence[Source], tasks: Tasks) -> list[Record]:
        """As many at once as the profile has in flight."""
        room = asyncio.Semaphore(self.profile.videos_in_flight)

        async def one(number: int, clip: Source) -> Record:
            async with room:
                return await self.fleet.analyse(clip, tasks, video_id=str(number))

        return await asyncio.gather(*(one(number, clip) for number, clip in enumerate(clips)))

    def count(self, records: Sequence[Record]) -> list[int]:
        """Tokens of each answer, its end included."""
        tokenizer = Tokenizer.load(self.folder)
        texts = [text for record in records for text in _texts(record)]
        return [1 + len(tokenizer.encode_text(text)) for text in texts]

    def _load(self, clips: Sequence[Source]) -> Load:
        planner = Planner(family=load_family(self.folder))
        asking = Asking.of(load_config(self.folder), _tasks(ONE), words=1.0)
        return sum((_load_of(planner, clip, asking) for clip in clips), NOTHING)


@contextmanager
def calibrator(folder: Path, profile: Profile, console: Console) -> Iterator[Calibrator]:
    """Clips drawn and a fleet started, for as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="vidray-") as temporary:
        with console.status("drawing clips to calibrate with"):
            short = _draw(Path(temporary), NUM_SHORT, SHORT_S)
            long = _draw(Path(temporary), NUM_LONG, LONG_S)
        with console.status("calibrating"), start_fleet(folder, profile=profile) as fleet:
            yield Calibrator(fleet, folder, profile, short, long)


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _texts(record: Record) -> list[str]:
    """Everything that was written about a video."""
    return [
        *(caption.text for caption in record.captions),
        *(answer.answer for answer in record.answers),
        *(box.raw for box in record.boxes),
    ]


def _tasks(words: int) -> Tasks:
    return Tasks(sampling=Sampling(max_new_tokens=words))


def _load_of(planner: Planner, clip: Source, asking: Asking) -> Load:
    media = probe(clip)
    plan = planner.plan(media, source_id=clip.uri)
    return load_of(media, plan, asking, still_at=lambda time_s: plan)


def _draw(folder: Path, num_clips: int, duration_s: float) -> list[Source]:
    """Clips of several codecs, the same on every machine."""
    clips = []
    for number in range(num_clips):
        rng = np.random.default_rng((number, round(duration_s)))
        scene = random_scene(rng, duration_s=duration_s)
        width, height = (2 * round(side * SIDE / max(scene.extent) / 2) for side in scene.extent)
        codec, suffix = CODECS[number % len(CODECS)]
        path = folder / f"clip-{duration_s:g}-{number}{suffix}"
        write_clip(
            path, scene, Encoding(width=width, height=height, codec=codec, suffix=suffix, crf=26)
        )
        clips.append(Source.of(path))
    return clips
