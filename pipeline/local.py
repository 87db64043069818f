"""The flow in this process: the stages as they are, one thread that computes.

Decoding happens in child processes, so it goes on while the model works. Encoding, prefill and
generation take turns on one thread: they want the same cores.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import VIDEO_BYTES, DecodeLimits, EngineLimits
from pipeline.engine.engine import Engine
from pipeline.engine.rank import Rank
from pipeline.flow import Flow
from pipeline.model.encoder import VisionEncoder
from pipeline.model.packed_weights import pack
from pipeline.model.quantize import quantize
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model
from pipeline.pool import Pool
from pipeline.served_model import ServedModel
from pipeline.span import Process
from pipeline.stages.encoding import EncodingStage
from pipeline.stages.reading import ReadingStage
from pipeline.types import FrameChunk, TokenChunk
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from pipeline.video.reader import Reader


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
        served = ServedModel.load(folder, limits=limits, int8=int8)
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
    """One model's stages, for few videos at a time. Close it when done."""

    def __init__(
        self,
        model: LocalModel,
        *,
        options: PlanOptions,
        reader: Reader = "pyav",
        limits: DecodeLimits | None = None,
        video_bytes: int = VIDEO_BYTES,
    ) -> None:
        self.computing = ThreadPoolExecutor(1, "compute")
        process = Process.here("model")
        self._reading = ReadingStage(limits or DecodeLimits(), reader=reader)
        encoding = EncodingStage(model.encoder, thread=self.computing, process=process)
        engine = Engine(model.rank, thread=self.computing, process=process)
        super().__init__(
            model.served,
            readers=Pool([self._reading]),
            encoders=Pool([encoding]),
            decoders=Pool([engine]),
            planner=Planner(family=model.served.family, options=options),
            video_bytes=video_bytes,
        )

    def close(self) -> None:
        """End the threads; what they are in the middle of is finished first."""
        self._reading.stop()
        self.computing.shutdown(cancel_futures=True)
