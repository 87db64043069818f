"""A vision encoder with a process of its own: the encoding stage as an actor."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import ray
import torch

from actors.calls import end_process, loading
from actors.metrics import Metrics, process_of_actor
from actors.parcel import FrameParcel, TokenParcel
from actors.profile import Profile
from actors.starting import loaded
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed_weights import pack
from pipeline.model.weights import load_model
from pipeline.span import Span
from pipeline.stages import precedence
from pipeline.stages.encoding import EncodingStage


@ray.remote(max_restarts=-1, max_task_retries=0)
class VisionEncoderActor:
    """Loads the vision tower alone; parcels in, parcels out."""

    def __init__(self, checkpoint: str, profile: Profile) -> None:
        with loading():
            load = partial(
                load_model,
                Path(checkpoint),
                dtype=getattr(torch, profile.dtype),
                device=profile.device,
                halves=("vision",),
            )
            if (share := profile.tower_memory_share) is not None:
                torch.cuda.set_per_process_memory_fraction(share)  # or vLLM would find less
            model = loaded(load, start_s=profile.start_s)
        pack(model.vision)
        self._metrics = Metrics()
        self._stage = EncodingStage(
            VisionEncoder(model.vision),
            thread=ThreadPoolExecutor(
                1, "encoder", initializer=os.nice, initargs=(precedence.ENCODER,)
            ),
            num_threads=profile.encoders.num_threads if profile.device == "cpu" else None,
            to_host=True,
            batch_tokens=profile.encoders.batch_tokens,
            process=process_of_actor(),
            observe=self._count,
            batch_s=profile.stall_s,
            on_failure=end_process,
        )

    @ray.method(num_returns=2)
    async def encode(
        self, parcel: FrameParcel, left: int, yields: bool
    ) -> tuple[TokenParcel, Span]:
        encoded = await self._stage.encode(parcel.unpack(), left=left, yields=yields)
        return TokenParcel.pack(encoded.tokens), encoded.span

    async def process_id(self) -> int:
        return os.getpid()

    def _count(self, span: Span, num_chunks: int, num_waiting: int) -> None:
        self._metrics.count(span, num_chunks=num_chunks, num_waiting=num_waiting)
