"""A vision encoder with a process of its own; chunks of any videos that wait are one batch."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch

from actors import precedence
from actors.calls import end_process
from actors.metrics import Metrics, place_of_actor
from actors.parcel import FrameParcel, TokenParcel
from actors.profile import Profile
from pipeline.cores import use_threads
from pipeline.engine.order import LeastLeftFirst
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed import pack
from pipeline.model.weights import load_model
from pipeline.stint import Stint
from pipeline.video.windows import CHUNK_TOKENS

MAX_BATCH = 4  # chunks; more only makes the first of them wait,
BATCH_TOKENS = CHUNK_TOKENS  # and a full chunk keeps the tower busy alone


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A chunk of frames, and how many of its window come after it."""

    parcel: FrameParcel
    left: int
    done: asyncio.Future[tuple[TokenParcel, Stint]]


@ray.remote(max_restarts=-1, max_task_retries=0)
class VisionEncoderActor:
    """Loads the vision tower alone and encodes what waits."""

    def __init__(self, checkpoint: str, profile: Profile) -> None:
        self._num_threads = profile.encoders.num_threads if profile.device == "cpu" else None
        model = load_model(
            Path(checkpoint),
            dtype=getattr(torch, profile.dtype),
            device=profile.device,
            halves=("vision",),
        )
        pack(model.vision)
        self._encoder = VisionEncoder(model.vision)
        self._num_weights = model.vision.num_weights
        self._stall_s = profile.stall_s
        self._thread = ThreadPoolExecutor(
            1, "encoder", initializer=os.nice, initargs=(precedence.ENCODER,)
        )
        self._waiting: list[Waiting] = []
        self._order = LeastLeftFirst()
        self._place, self._metrics = place_of_actor(), Metrics()
        self._is_busy = asyncio.Lock()

    @ray.method(num_returns=2)
    async def encode(self, parcel: FrameParcel, left: int) -> tuple[TokenParcel, Stint]:
        """The parcel's tokens, and what that took: the time of its whole batch.

        left: chunks of the window after it
        """
        done: asyncio.Future[tuple[TokenParcel, Stint]]
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(parcel, left, done))
        async with self._is_busy:
            while not done.done():  # others may be nearer to their end
                await self._encode_waiting()
        return await done

    async def process_id(self) -> int:
        return os.getpid()

    async def _encode_waiting(self) -> None:
        batch = self._take_batch()
        parcels = [each.parcel for each in batch]
        loop, started_s = asyncio.get_running_loop(), time.monotonic()
        try:
            async with asyncio.timeout(self._stall_s):
                encoded = await loop.run_in_executor(self._thread, self._encode, parcels)
        except TimeoutError as error:
            end_process(error)
        except Exception as error:  # noqa: BLE001 - each waiter is told
            for each in batch:
                each.done.set_exception(error)
            return
        stint = self._place.stint(
            "encode",
            started_s,
            num_tokens=sum(tokens.num_tokens for tokens in encoded),
            num_bytes=sum(tokens.num_bytes for tokens in encoded),
        )
        self._metrics.count(stint, num_chunks=len(batch), num_waiting=len(self._waiting))
        for each, tokens in zip(batch, encoded, strict=True):
            share = replace(stint, num_tokens=tokens.num_tokens, num_bytes=tokens.num_bytes)
            each.done.set_result((tokens, share))

    def _take_batch(self) -> list[Waiting]:
        """The oldest chunk of each of some videos: a second one would only keep the first back."""
        oldest: dict[str, Waiting] = {}
        for each in self._waiting:
            oldest.setdefault(each.parcel.plan_hash, each)
        batch: list[Waiting] = []
        room = BATCH_TOKENS
        for each in self._order.sorted(oldest.values(), left=lambda each: each.left):
            if not batch or each.parcel.grid.num_tokens <= room:
                batch.append(each)
                room -= each.parcel.grid.num_tokens
        batch = batch[:MAX_BATCH]
        self._waiting = [each for each in self._waiting if each not in batch]
        return batch

    def _encode(self, parcels: list[FrameParcel]) -> list[TokenParcel]:
        if self._num_threads is not None:
            num_patches = sum(parcel.grid.num_patches for parcel in parcels)
            num_products = num_patches * self._num_weights
            use_threads(self._num_threads, num_weights=self._num_weights, num_products=num_products)
        chunks = self._encoder.encode([parcel.unpack() for parcel in parcels])
        return [TokenParcel.pack(chunk) for chunk in chunks]
