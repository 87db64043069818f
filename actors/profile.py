"""How much of a machine or a fleet vidray takes: pool sizes, devices, budgets. One typed file."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from actors.vllm.version import require_vllm
from pipeline.config import (
    MIB,
    OWN_ENGINE,
    VIDEO_BYTES,
    DecodeLimits,
    EngineLimits,
    Numerics,
    SessionLimits,
)
from pipeline.errors import ConfigError
from pipeline.limits import LimitOptions
from pipeline.patience import Patience
from pipeline.settings import Settings, explain, load_yaml
from pipeline.video.windows import CHUNK_TOKENS

INT8_IS_OURS = "int8 is of vidray's own engine; vLLM serves quantised checkpoints"


class ReaderPool(Settings):
    """Processes that own the decoding children."""

    num_actors: int = Field(default=1, ge=1, description="how many")
    num_cpus: float = Field(default=0.5, ge=0, description="cores that one asks Ray for")
    videos_per_actor: int = Field(default=2, ge=1, description="clips one reader reads at once")
    ahead_bytes: int = Field(
        default=32 * MIB, ge=1, description="decoded frames of one clip that wait in its child"
    )


class EncoderPool(Settings):
    """Copies of the vision tower."""

    num_actors: int = Field(default=1, ge=1, description="how many")
    num_cpus: float = Field(default=0.5, ge=0, description="cores that one asks Ray for")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs, or the part of one, likewise")
    num_threads: int = Field(
        default=2, ge=1, description="torch threads of one copy for a large batch, CPU only"
    )
    batch_tokens: int = Field(
        default=CHUNK_TOKENS,
        ge=1,
        description="tokens that are encoded together, of chunks of different videos; a GPU is "
        "busy with 4096, which are 16,384 patches",
    )


class DecoderPool(Settings):
    """Replicas of the language model, each sharded over tensor-parallel ranks."""

    engine: Literal["vidray", "vllm"] = Field(
        default="vidray",
        description="who computes: vidray's own engine, or vLLM, which needs `vidray[vllm]`",
    )
    num_replicas: int = Field(default=1, ge=1, description="how many")
    tensor_parallel: int = Field(default=1, ge=1, description="ranks that share one replica")
    num_cpus: float = Field(default=0.5, ge=0, description="cores that one rank asks Ray for")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs, or the part of one, likewise")
    num_threads: int = Field(
        default=2, ge=1, description="torch threads of one rank in a large step, CPU only"
    )
    gap_s: float = Field(
        default=0.02,
        ge=0,
        description="between steps of words alone while other videos are on their way; "
        "0 where the decoder shares no cores with them",
    )
    kv_tokens: int = Field(default=65_536, ge=1, description="tokens all open streams may hold")
    question_tokens: int = Field(default=2_048, ge=1, description="of them, one stream's questions")
    int8: bool = Field(default=False, description="round the language model; CPU only, not exact")
    memory_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="of a GPU's memory, what is vLLM's: weights, what it computes with, and "
        "`kv_tokens`; the encoders of that card have the rest",
    )

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> Self:
        if self.engine == "vllm" and self.int8:
            raise ValueError(INT8_IS_OURS)
        return self

    @model_validator(mode="after")
    def _questions_fit(self) -> Self:
        if self.question_tokens > self.kv_tokens:
            raise ValueError("{question_tokens} must be at most {kv_tokens}")
        return self

    @property
    def limits(self) -> EngineLimits:
        return EngineLimits(max_tokens=self.kv_tokens, question_tokens=self.question_tokens)


class SessionPool(Settings):
    """Videos that stay open for more questions."""

    idle_s: float = Field(
        default=300.0, gt=0, description="until an idle video's keys and values are given up"
    )
    idle_tokens: int | None = Field(
        default=None,
        ge=0,
        description="keys and values that all idle videos may keep; half of what the decoders hold "
        "if not given. Whoever has no room waits 0.2 s for one of them to give way",
    )
    forget_s: float = Field(default=3_600.0, gt=0, description="until an idle video is closed")


class Profile(Settings):
    """One deployment. Defaults are the laptop: two cores, 4 GiB, no GPU."""

    name: str = Field(default="laptop", description="as messages call it")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the model computes")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="in what numbers")
    readers: ReaderPool = ReaderPool()
    encoders: EncoderPool = EncoderPool()
    decoders: DecoderPool = DecoderPool()
    sessions: SessionPool = SessionPool()
    stream_hosts: int = Field(
        default=1,
        ge=1,
        description="processes that make the calls of all videos, which are spread over them; one "
        "is enough for some 6 H100 with 7B and 40 with 72B (docs/scale.md)",
    )
    videos_in_flight: int = Field(default=8, ge=1, description="videos open at once")
    video_bytes: int = Field(
        default=VIDEO_BYTES,
        ge=1,
        description="frames and token chunks of one video between reader and decoder; "
        "one chunk, at most 12 MiB with 2B and 22 MiB with 72B, may always be on its way",
    )
    object_store_bytes: int = Field(default=256 * MIB, ge=80 * MIB, description="embedded Ray only")
    limits: LimitOptions = Field(
        default=LimitOptions(), description="of decoding, for every video; jobs may lower them"
    )
    start_s: float = Field(
        default=600.0,
        gt=0,
        description="for how long an actor may load what it works with, its place once found",
    )
    stall_s: float = Field(default=120.0, gt=0, description="silence after which an actor is dead")
    window_s: float = Field(
        default=Patience().window_s,
        gt=0,
        description="what a video may take in all, for each of its windows, before it is tried "
        "again",
    )
    max_attempts: int = Field(default=3, ge=1, description="runs of one video before it fails")
    recover_s: float = Field(
        default=600.0,
        gt=0,
        description="for how long nobody may be there for a stage, as while a decoder loads again; "
        "then the job stops, and can be gone on with",
    )

    @property
    def session_limits(self) -> SessionLimits:
        """Of one stream host."""
        idle_tokens = self.sessions.idle_tokens
        if idle_tokens is None:
            idle_tokens = self.decoders.num_replicas * self.decoders.kv_tokens // 2
        return SessionLimits(
            idle_s=self.sessions.idle_s,
            max_tokens=idle_tokens // self.stream_hosts,
            forget_s=self.sessions.forget_s,
        )

    @model_validator(mode="after")
    def _videos_fit_the_object_store(self) -> Self:
        num_bytes = self.videos_in_flight * self.video_bytes
        if num_bytes > self.object_store_bytes:
            raise ValueError(
                f"videos_in_flight * video_bytes is {num_bytes}, "
                f"more than object_store_bytes {self.object_store_bytes}"
            )
        return self

    @property
    def decode_limits(self) -> DecodeLimits:
        """The built-in ones with what this profile says instead."""
        return self.limits.over(DecodeLimits(ahead_bytes=self.readers.ahead_bytes))

    @property
    def numerics(self) -> Numerics:
        """In what its model computes; ConfigError where the engine that does it is missing."""
        return Numerics(
            device=self.device,
            dtype=self.dtype,
            int8=self.decoders.int8,
            engine=f"vLLM {require_vllm()}" if self.decoders.engine == "vllm" else OWN_ENGINE,
        )

    def rounding(self, *, int8: bool) -> "Profile":
        """The same, its language model rounded if that is wanted; ConfigError if vLLM has it."""
        if not int8:
            return self
        if self.decoders.engine == "vllm":
            raise ConfigError(f"profile {self.name}: {INT8_IS_OURS}")
        decoders = self.decoders.model_copy(update={"int8": True})
        return self.model_copy(update={"decoders": decoders})

    @property
    def tower_memory_share(self) -> float | None:
        """Of a card's memory, what one encoder may take that is there beside vLLM."""
        if self.device == "cpu" or self.decoders.engine != "vllm" or self.decoders.num_gpus == 1:
            return None
        num_ranks = self.decoders.num_replicas * self.decoders.tensor_parallel
        num_towers = -(-self.encoders.num_actors // num_ranks)
        return (1 - self.decoders.memory_share) / num_towers

    @property
    def lease_s(self) -> float:
        """Silence of a stream host after which all that it has open is closed."""
        return 2 * self.stall_s

    @property
    def answer_s(self) -> float:
        """How long one call to an actor that lives may take: every other video goes first, and each
        of their steps is as slow as one may be.
        """
        return self.decode_limits.hang_s + self.stall_s * (self.videos_in_flight + 2)

    @property
    def patience(self) -> Patience:
        """With a whole video; each of its calls has the same patience as its silence."""
        return Patience(silence_s=self.answer_s, window_s=self.window_s)

    @property
    def num_cpus(self) -> float:
        """What all actors together ask of the cluster."""
        num_ranks = self.decoders.num_replicas * self.decoders.tensor_parallel
        return (
            self.readers.num_actors * self.readers.num_cpus
            + self.encoders.num_actors * self.encoders.num_cpus
            + num_ranks * self.decoders.num_cpus
        )

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read a YAML profile. ConfigError names the file, the field and the rule it breaks."""
        try:
            return cls.model_validate(load_yaml(path.read_text(encoding="utf-8")) or {})
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            raise ConfigError(f"{path}: {explain(error, lambda name: name or 'it')}") from error
