"""The flow in this process: the stages as they are, one thread that computes.

Decoding happens in child processes, so it goes on while the model works. Encoding, prefill and
generation take turns on one thread: they want the same cores.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config import VIDEO_BYTES, DecodeLimits, EngineLimits, Numerics
from pipeline.cores import in_passing
from pipeline.engine.engine import Engine
from pipeline.engine.rank import Rank
from pipeline.errors import Transient
from pipeline.flow import Flow
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed_weights import pack
from pipeline.model.quantize import quantize
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model
from pipeline.patience import Patience
from pipeline.pool import Pool
from pipeline.served_model import ServedModel
from pipeline.span import Process
from pipeline.stages.encoding import EncodingStage
from pipeline.stages.reading import ReadingStage
from pipeline.types import FrameChunk, TokenChunk
from pipeline.video.libraries import Reader
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A checkpoint in this process."""

    served: ServedModel
    encoder: VisionEncoder
    rank: Rank

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        limits: EngineLimits | None = None,
        device: str = "cpu",
        int8: bool = False,
    ) -> "LocalModel":
        """The model in this folder; CheckpointError if it cannot be trusted.

        int8: the opt-in mode of quantize.py, for the language model; the name says so in every row.
        """
        return in_passing(partial(cls._load, folder, limits, device, int8=int8))

    @classmethod
    def _load(
        cls, folder: Path, limits: EngineLimits | None, device: str, *, int8: bool
    ) -> "LocalModel":
        served = ServedModel.load(folder, limits=limits, numerics=Numerics.on(device, int8=int8))
        tokenizer = Tokenizer.load(folder)
        model = load_model(folder, device=device)
        pack(model.vision)
        quantize(model.language) if int8 else pack(model.language)
        return cls(
            served=served,
            encoder=VisionEncoder(model.vision),
            rank=Rank(model.language, tokenizer, eos_ids=served.eos_ids, limits=limits),
        )


class LocalFlow(Flow[FrameChunk, TokenChunk]):
    """One model's stages, for few videos at a time. Close it when done.

    patience: with each video; a step of the model that takes as long as its silence has failed.
    """

    def __init__(
        self,
        model: LocalModel,
        *,
        options: PlanOptions,
        reader: Reader = "pyav",
        limits: DecodeLimits | None = None,
        video_bytes: int = VIDEO_BYTES,
        patience: Patience | None = None,
    ) -> None:
        limits = limits or DecodeLimits()
        patience = patience or Patience(silence_s=limits.hang_s)
        self.hangs = False  # a thread of it may never end
        self.computing = ThreadPoolExecutor(1, "compute")
        process = Process.here("model")
        self._reading = ReadingStage(limits, reader=reader, on_failure=self._on_failure)
        encoding = EncodingStage(
            model.encoder,
            thread=self.computing,
            process=process,
            batch_s=patience.silence_s,
            on_failure=self._on_failure,
        )
        engine = Engine(
            model.rank,
            thread=self.computing,
            process=process,
            step_s=patience.silence_s,
            on_failure=self._on_failure,
        )
        super().__init__(
            model.served,
            readers=Pool([self._reading]),
            encoders=Pool([encoding]),
            decoders=Pool([engine]),
            planner=Planner(family=model.served.family, options=options),
            video_bytes=video_bytes,
            patience=patience,
        )

    async def sandbox(self) -> tuple[str, ...]:
        """The measures of confinement.py that hold decoders here."""
        return await self._reading.sandbox()

    def close(self) -> None:
        """End the threads; what they are in the middle of is finished first, unless it hangs."""
        self._reading.stop(waits=not self.hangs)
        self.computing.shutdown(wait=not self.hangs, cancel_futures=True)

    def _on_failure(self, error: BaseException) -> None:
        self.hangs = self.hangs or isinstance(error, TimeoutError | Transient)
