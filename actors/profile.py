"""How much of a machine or a fleet vidray takes: pool sizes, devices, budgets. One typed file."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config import MIB, VIDEO_BYTES, DecodeLimits, EngineLimits, SessionLimits
from pipeline.errors import ConfigError
from pipeline.limits import LimitOptions


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReaderPool(_Settings):
    """Processes that own the decoding children."""

    num_actors: int = Field(default=1, ge=1, description="how many")
    num_cpus: float = Field(default=0.5, ge=0, description="cores that one asks Ray for")
    videos_per_actor: int = Field(default=2, ge=1, description="clips one reader reads at once")
    ahead_bytes: int = Field(
        default=32 * MIB, ge=1, description="decoded frames of one clip that wait in its child"
    )


class EncoderPool(_Settings):
    """Copies of the vision tower."""

    num_actors: int = Field(default=1, ge=1, description="how many")
    num_cpus: float = Field(default=0.5, ge=0, description="cores that one asks Ray for")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs, or the part of one, likewise")
    num_threads: int = Field(
        default=2, ge=1, description="torch threads of one copy for a large batch, CPU only"
    )


class DecoderPool(_Settings):
    """Replicas of the language model, each sharded over tensor-parallel ranks."""

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

    @property
    def limits(self) -> EngineLimits:
        return EngineLimits(max_tokens=self.kv_tokens, question_tokens=self.question_tokens)


class SessionPool(_Settings):
    """Videos that stay open for more questions."""

    idle_s: float = Field(
        default=300.0, gt=0, description="until an idle video's keys and values are given up"
    )
    idle_tokens: int = Field(
        default=32_768, ge=0, description="keys and values that all idle videos may keep"
    )
    forget_s: float = Field(default=3_600.0, gt=0, description="until an idle video is closed")

    @property
    def limits(self) -> SessionLimits:
        return SessionLimits(
            idle_s=self.idle_s, max_tokens=self.idle_tokens, forget_s=self.forget_s
        )


class Profile(_Settings):
    """One deployment. Defaults are the laptop: two cores, 4 GiB, no GPU."""

    name: str = Field(default="laptop", description="as messages call it")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the model computes")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="in what numbers")
    readers: ReaderPool = ReaderPool()
    encoders: EncoderPool = EncoderPool()
    decoders: DecoderPool = DecoderPool()
    sessions: SessionPool = SessionPool()
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
    stall_s: float = Field(default=120.0, gt=0, description="silence after which an actor is dead")
    max_attempts: int = Field(default=3, ge=1, description="runs of one video before it fails")
    recover_s: float = Field(
        default=600.0,
        gt=0,
        description="for how long nobody may be there for a stage, as while a decoder loads again; "
        "then the job stops, and can be gone on with",
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
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(key) for key in first["loc"]) or "profile"
            raise ConfigError(f"{path}: {field}: {first['msg']}, got {first['input']!r}") from error
