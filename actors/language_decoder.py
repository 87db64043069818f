"""A decoder replica as Ray actors: a leader with the first rank, and followers that it owns.

They live and die together: followers are the leader's own actors, so they go when it goes, and the
leader ends its process when a follower is lost. Ray then starts the whole replica again.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import ray
import torch
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed import Store

from actors.calls import Handle, end_process, loading
from actors.host_watch import until_gone
from actors.meeting import MeetingPlace, join, listen
from actors.metrics import Metrics, process_of_actor
from actors.parcel import TokenParcel, chunks_travel_as_parcels
from actors.profile import Profile
from actors.starting import loaded
from pipeline.engine.commands import Commands, Step
from pipeline.engine.engine import Engine, nobody_else
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta, joined
from pipeline.engine.rank import Rank
from pipeline.errors import Transient
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.gathered import gathered
from pipeline.leases import Claim, Lessor
from pipeline.model.packed_weights import pack
from pipeline.model.parallel import TensorParallel
from pipeline.model.quantize import quantize
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model
from pipeline.span import Span


@ray.remote(max_restarts=-1, max_task_retries=0)
class LanguageDecoderActor:
    """The leader: callers see only this one."""

    def __init__(self, checkpoint: str, profile: Profile) -> None:
        size = profile.decoders.tensor_parallel
        place, store = None, None
        if size > 1:
            place, store = listen(size=size, start_s=profile.start_s)
            chunks_travel_as_parcels()
        self._followers = [
            DecoderRankActor.options(  # type: ignore[attr-defined]
                num_cpus=profile.decoders.num_cpus,
                num_gpus=profile.decoders.num_gpus,
                max_concurrency=2,  # `live` beside everything else
                # Each in its own bundle: what is left of that is its encoder's.
                scheduling_strategy=_bundle(rank),
            ).remote(checkpoint, profile, rank, place)
            for rank in range(1, size)
        ]
        self._max_tokens = profile.decoders.kv_tokens
        self._metrics = Metrics()
        with loading():
            rank = loaded(
                lambda: _load_rank(checkpoint, profile, 0, place, store),
                start_s=profile.start_s,
                others=[each.process_id.remote() for each in self._followers],
            )
        threading.Thread(target=_end_with, args=(self._followers,), daemon=True).start()
        self._engine = Engine(
            rank,
            broadcast=self._broadcast if self._followers else nobody_else,
            process=process_of_actor(),
            observe=self._count,
            gap_s=0.0 if profile.device == "cuda" else profile.decoders.gap_s,
            step_s=profile.stall_s,
            on_failure=end_process,
        )
        self._lessor = Lessor(
            lambda: self._engine.streams,
            self.close,
            lease_s=profile.lease_s,
            until_gone=until_gone,
        )

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        self._lessor.watch(stream.owner)
        await self._engine.open(stream, media)
        self._measure_cache()

    async def prefill(self, stream: StreamId, parcel: TokenParcel, number: int, left: int) -> Span:
        return await self._engine.prefill(stream, parcel.unpack(), number=number, left=left)

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], closes: bool
    ) -> AsyncIterator[list[TextDelta]]:
        """Answer all questions as one batch: words as they come, those of 0.2 s together."""
        async for deltas in gathered(self._engine.ask(stream, questions, closes=closes)):
            yield joined(deltas)
        self._measure_cache()

    async def close(self, stream: StreamId) -> None:
        await self._engine.close(stream)
        self._measure_cache()

    async def release(self, owner: str) -> None:
        """Close every stream that a stream host of this name left behind."""
        await self._engine.release(owner)
        self._measure_cache()

    async def is_short(self) -> bool:
        """Whether a stream waits for room."""
        return await self._engine.is_short()

    async def renew(self, claim: Claim) -> None:
        """Close what its holder wants no more."""
        await self._lessor.renew(claim)
        self._measure_cache()

    async def streams(self) -> tuple[StreamId, ...]:
        """Of those that are open, or wait to be."""
        return self._engine.streams

    async def process_id(self) -> int:
        return os.getpid()

    async def process_ids(self) -> list[int]:
        """Of every rank, the leader's first."""
        others = (each.process_id.remote() for each in self._followers)
        return [os.getpid(), *await asyncio.gather(*others)]

    def _count(self, step: Step, span: Span) -> None:
        """A step's time counts for its chunks and for its words."""
        num_waiting = self._engine.num_waiting
        if step.prefills:
            num_tokens = sum(chunk.tokens.shape[0] for _, chunk in step.prefills)
            prefill = replace(span, num_tokens=num_tokens)
            num_chunks = len(step.prefills)
            self._metrics.count(prefill, num_chunks=num_chunks, num_waiting=num_waiting)
        if step.generations:
            words = replace(span, stage="generate", num_tokens=len(step.generations))
            self._metrics.count(words, num_chunks=0)

    def _measure_cache(self) -> None:
        num_tokens = self._max_tokens - self._engine.rank.admission.num_free_tokens
        self._metrics.hold(num_tokens, max_tokens=self._max_tokens)

    async def _broadcast(self, commands: Commands) -> None:
        """Have every follower run the commands; tokens are written down once for all of them."""
        has_tokens = any(isinstance(each, Step) and each.prefills for each in commands)
        shared = ray.put(commands) if has_tokens else commands
        await asyncio.gather(*(each.run.remote(shared) for each in self._followers))


@ray.remote(max_restarts=0, max_task_retries=0)
class DecoderRankActor:
    """A rank that is told what to do, one batch of commands at a time."""

    def __init__(self, checkpoint: str, profile: Profile, rank: int, place: MeetingPlace) -> None:
        self._rank = _load_rank(checkpoint, profile, rank, place)

    def run(self, commands: Commands) -> None:
        self._rank.run(commands)

    def live(self) -> None:
        """Never return: whoever waits for this learns of the rank's death at once, idle or not."""
        threading.Event().wait()

    def process_id(self) -> int:
        return os.getpid()


def _end_with(followers: Sequence[Handle]) -> None:
    """End this process when a follower is lost: a group with a hole can only hang."""
    if followers:
        ray.wait([each.live.remote() for each in followers], num_returns=1)
        end_process(Transient("a rank was lost; its replica starts again"))


def _load_rank(
    checkpoint: str,
    profile: Profile,
    rank: int,
    place: MeetingPlace | None,
    store: Store | None = None,
) -> Rank:
    """Of a replica whose ranks meet there, if there are several; it has run its first step."""
    parallel = TensorParallel()
    if place is not None:
        join(place, rank, device=profile.device, store=store)
        parallel = TensorParallel(rank, place.size)
    folder = Path(checkpoint)
    model = load_model(
        folder,
        parallel=parallel,
        dtype=getattr(torch, profile.dtype),
        device=profile.device,
        halves=("language",),
    )
    quantize(model.language) if profile.decoders.int8 else pack(model.language)
    ready = Rank(
        model.language,
        Tokenizer.load(folder),
        eos_ids=load_generation(folder).eos_ids,
        limits=profile.decoders.limits,
        num_threads=profile.decoders.num_threads if profile.device == "cpu" else None,
    )
    ready.warm_up()
    return ready


def _bundle(rank: int) -> PlacementGroupSchedulingStrategy:
    """A rank's own place in the group that this replica was given."""
    group = get_current_placement_group()
    if group is None:
        raise RuntimeError("a replica of several ranks is placed as a group")
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
