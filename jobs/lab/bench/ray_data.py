"""The same stages as a Ray Data pipeline, as its documentation would write it: the twin to beat.

A row is a window of a video. Three actor pools as large as a profile's, with its threads, running
the same code on the same frames; answers of a batch are written together, as the fleet does it.
What it leaves out, and the fleet does: putting windows together, records, retries, credits.

python -m jobs.lab.bench.ray_data MODEL OUT MAX_NEW_TOKENS CLIP... writes the rows as Parquet.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import ray.data
import torch
from ray.data import ActorPoolStrategy

from actors.cluster import start_local_ray
from actors.profile import Profile
from jobs.lab.bench import in_a_row
from pipeline.config import MIB, Sampling
from pipeline.engine.commands import CloseStream, OpenStream
from pipeline.engine.ids import StreamId
from pipeline.engine.rank import Rank
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed_weights import pack
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model
from pipeline.prompts import Prompts
from pipeline.tasks.requests import View, make_views
from pipeline.tasks.tasks import Tasks
from pipeline.types import FrameChunk, TokenChunk
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import open_media
from pipeline.video.source import Source

STORE_BYTES = 1024 * MIB  # its blocks are 128 MiB, four times what a video of the fleet may hold
ACTORS_TIMEOUT_S = 300

Batch = dict[str, Any]  # columns by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A pipeline to be. batch_size: rows that are encoded, and answered, together."""

    checkpoint: Path
    tasks: Tasks
    options: PlanOptions
    profile: Profile
    batch_size: int

    def dataset(self, clips: Sequence[Path]) -> "ray.data.Dataset":
        """Rows of path, window_index, answers, started_s: when the video began to be read."""
        _set_up()
        profile, folder = self.profile, self.checkpoint
        planner = Planner(family=load_family(folder), options=self.options)
        paths = [{"path": str(clip)} for clip in clips]
        num_readers = profile.readers.num_actors * profile.readers.videos_per_actor
        return (
            ray.data.from_items(paths, override_num_blocks=len(paths))
            .map_batches(
                TwinReader,
                fn_constructor_args=(planner, self.tasks),
                batch_size=1,
                compute=ActorPoolStrategy(size=num_readers),
                num_cpus=profile.readers.num_cpus / num_readers,
            )
            .map_batches(
                TwinEncoder,
                fn_constructor_args=(folder, profile.encoders.num_threads),
                batch_size=self.batch_size,
                compute=ActorPoolStrategy(size=profile.encoders.num_actors),
                num_cpus=profile.encoders.num_cpus,
            )
            .map_batches(
                TwinDecoder,
                fn_constructor_args=(folder, profile),
                batch_size=self.batch_size,
                compute=ActorPoolStrategy(size=profile.decoders.num_replicas),
                num_cpus=profile.decoders.num_cpus,
            )
        )

    def seconds(self, clips: Sequence[Path], *, num_rows: int | None = None) -> float:
        """From the start of the first read, with all actors up, to num_rows rows, or the last."""
        rows = islice(self.dataset(clips).iter_rows(), num_rows)
        started_s: float = min(row["started_s"] for row in rows)
        return time.monotonic() - started_s


class TwinReader:
    """A video in, a row per window out as soon as it is decoded."""

    def __init__(self, planner: Planner, tasks: Tasks) -> None:
        self._planner, self._tasks = planner, tasks

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        started_s = time.monotonic()
        (path,) = batch["path"]
        with open_media(Source.of(path)) as media:
            plan = self._planner.plan(media.info, source_id=path)
            for view in make_views(plan, self._tasks, still_at=lambda _: plan):
                frames = torch.cat([chunk.frames for chunk in media.read(plan, view.window)])
                yield {
                    "path": [path],
                    "view": [view],
                    "frames": [frames.numpy()],
                    "started_s": [started_s],
                }


class TwinEncoder:
    """Rows with frames in, rows with tokens out; chunks of equal size share a pass."""

    def __init__(self, checkpoint: Path, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        vision = load_model(checkpoint, halves=("vision",)).vision
        pack(vision)
        self._encoder = VisionEncoder(vision)

    def __call__(self, batch: Batch) -> Batch:
        views = list(batch["view"])
        cut = map(_frame_chunks, views, batch.pop("frames"))
        tokens: list[list[torch.Tensor]] = [[] for _ in views]
        for chunks in zip_longest(*cut):
            places = [place for place, chunk in enumerate(chunks) if chunk is not None]
            encoded = self._encoder.encode([chunks[place] for place in places])
            for place, chunk in zip(places, encoded, strict=True):
                tokens[place].append(chunk.tokens)
        return batch | {"tokens": [torch.cat(chunks).numpy() for chunks in tokens]}


class TwinDecoder:
    """Rows with tokens in, rows with answers out."""

    def __init__(self, checkpoint: Path, profile: Profile) -> None:
        torch.set_num_threads(profile.decoders.num_threads)
        tokenizer, limits = Tokenizer.load(checkpoint), profile.decoders.limits
        language = load_model(checkpoint, halves=("language",)).language
        pack(language)
        self._prompts = Prompts(ChatLayout(tokenizer), limits)
        ends = load_generation(checkpoint).eos_ids
        self._rank = Rank(language, tokenizer, eos_ids=ends, limits=limits)

    def __call__(self, batch: Batch) -> Batch:
        views = list(batch["view"])
        streams = [StreamId("twin", "", row) for row in range(len(views))]
        for stream, view, tokens in zip(streams, views, batch["tokens"], strict=True):
            self._rank.control(OpenStream(stream, tuple(self._prompts.media(view))))
            in_a_row.prefill(self._rank, stream, _token_chunks(view, tokens))
        asked = [
            [(stream, question) for question in self._prompts.questions(view, view.requests)]
            for stream, view in zip(streams, views, strict=True)
        ]
        said = iter(in_a_row.write(self._rank, [each for of_row in asked for each in of_row]))
        for stream in streams:
            self._rank.control(CloseStream(stream))
        return {
            "path": batch["path"],
            "window_index": [view.window.index for view in views],
            "answers": [[next(said).text for _ in of_row] for of_row in asked],
            "started_s": batch["started_s"],
        }


def _frame_chunks(view: View, frames: Any) -> list[FrameChunk]:
    geometry = view.window.grid.geometry
    temporal = geometry.temporal
    return [
        FrameChunk(
            plan_hash=view.plan.hash,
            window_index=view.window.index,
            index=span.index,
            geometry=geometry,
            frames=torch.from_numpy(frames[span.start * temporal : span.stop * temporal].copy()),
            is_damaged=(False,) * (span.num_steps * temporal),
        )
        for span in view.window.chunks
    ]


def _token_chunks(view: View, tokens: Any) -> list[TokenChunk]:
    per_step = view.window.grid.tokens_per_step
    return [
        TokenChunk(
            plan_hash=view.plan.hash,
            window_index=view.window.index,
            index=span.index,
            tokens=torch.from_numpy(tokens[span.start * per_step : span.stop * per_step].copy()),
        )
        for span in view.window.chunks
    ]


def _set_up() -> None:
    """Nothing is read before every actor has its model, so that start-up can be told apart."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = ACTORS_TIMEOUT_S


def main(model: str, out: str, max_new_tokens: str, *clips: str) -> None:
    """Answer all clips from start to Parquet, on a Ray of its own."""
    profile = Profile()
    start_local_ray(object_store_bytes=STORE_BYTES, num_cpus=profile.num_cpus)
    twin = Twin(
        checkpoint=Path(model),
        tasks=Tasks(sampling=Sampling(max_new_tokens=int(max_new_tokens))),
        options=PlanOptions(),
        profile=profile,
        batch_size=profile.videos_in_flight,
    )
    twin.dataset([Path(clip) for clip in clips]).write_parquet(out)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
