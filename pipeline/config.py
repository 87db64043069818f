"""Settings and limits, one frozen dataclass per noun: loaded at the edge, passed down."""

from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.types import Geometry

MIB = 1 << 20
GIB = 1 << 30
OWN_ENGINE = "vidray"
SLOWEST_BYTES_PER_S = 16 * MIB  # of a file system that is still taken to work
VIDEO_BYTES = 24 * MIB  # that one video may have on its way between its reader and its decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What one video may cost before it is refused; each is checked before the expensive step."""

    max_bytes: int = 64 * GIB
    max_pixels: int = 7680 * 4320  # of one coded frame
    max_packets: int = 20_000_000
    memory_bytes: int = 3 * GIB  # address space of the decoding child
    wall_s: float = 600.0  # all waiting for the decoders of one video
    stall_s: float = 60.0  # between two frames
    threads: int = 1  # decoder threads in each child
    ahead_bytes: int = 96 * MIB  # decoded frames that wait in a child; two may always
    niceness: int = 5  # how far a child gives way to who computes on its frames, 0 to 19

    @property
    def hang_s(self) -> float:
        """How long a file may keep its reader busy: decoders, and all its bytes read once."""
        return self.wall_s + 60.0 + self.max_bytes / SLOWEST_BYTES_PER_S

    def __post_init__(self) -> None:
        if self.max_pixels < 1 or self.threads < 1 or self.wall_s <= 0:
            raise ConfigError(f"decode limits must be positive, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the language model's weights were rounded. bits: of one, where the file says so."""

    method: str
    bits: int | None

    def __str__(self) -> str:
        return f"{self.method}, {self.bits} bits" if self.bits else self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """In what a model computes, and who does: with others, some of its words are others.

    device: its kind, cpu or cuda. dtype: as torch names it. int8: the language model is rounded
    when it is loaded. stored: how its files were. engine: of the language model; another one than
    vidray's with its version.
    """

    device: str = "cpu"
    dtype: str = "float32"
    int8: bool = False
    stored: Quantization | None = None
    engine: str = OWN_ENGINE

    @classmethod
    def on(cls, device: str, *, int8: bool = False) -> "Numerics":
        """Of one process: float32 on a CPU, where bfloat16 matmuls are slow; else bfloat16.

        Attention scores of Qwen2-VL overflow float16 (huggingface/transformers #33294).
        """
        kind = device.partition(":")[0]
        return cls(device=kind, dtype="float32" if kind == "cpu" else "bfloat16", int8=int8)

    @property
    def quantization(self) -> str | None:
        """As rows call it."""
        if self.int8:
            return "int8"
        return None if self.stored is None else str(self.stored)

    def __str__(self) -> str:
        by = "" if self.engine == OWN_ENGINE else f" by {self.engine}"
        return f"{self.quantization or self.dtype} on {self.device}{by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """The vision tower, as in vision_config of config.json."""

    depth: int
    embed_dim: int
    num_heads: int
    mlp_ratio: float
    hidden_size: int  # merger output = language model width
    geometry: Geometry
    # Of the preprocessor config: pixels enter as (x / 255 - mean) / std, per channel.
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    in_channels: int = 3

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch: C * temporal * patch * patch."""
        return self.in_channels * self.geometry.temporal * self.geometry.patch**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A Qwen2-VL checkpoint's shape, as in config.json; token ids are the checkpoint's own."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_positions: int
    tie_word_embeddings: bool
    vision: VisionConfig
    vision_start_id: int
    vision_end_id: int
    image_pad_id: int
    video_pad_id: int
    quantization: Quantization | None = None

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def kv_bytes_per_token(self, *, element_bytes: int = 2) -> int:
        """Bytes one token holds in the cache over all layers, keys and values."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The default is greedy."""

    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is no limit
    repetition_penalty: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "temperature": 0.0 <= self.temperature <= 10.0,
            "top_p": 0.0 < self.top_p <= 1.0,
            "top_k": self.top_k >= 0,
            "repetition_penalty": 0.1 <= self.repetition_penalty <= 10.0,
            "max_new_tokens": 1 <= self.max_new_tokens <= 32_768,
        }
        for name, holds in checks.items():
            if not holds:
                raise ConfigError(f"{name} is out of range, got {getattr(self, name)!r}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken; below 1e-5 no other has a chance."""
        return self.temperature < 1e-5 or self.top_k == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What videos that are open, and asked nothing right now, may hold."""

    idle_s: float = 300.0  # then a video's streams are closed; its next question fills them again
    max_tokens: int = 32_768  # of all idle streams of one host; the longest idle give way
    forget_s: float = 3_600.0  # then the video is not open any more

    def __post_init__(self) -> None:
        if self.idle_s <= 0 or self.max_tokens < 0 or self.forget_s < self.idle_s:
            raise ConfigError(f"need 0 < idle_s <= forget_s and max_tokens >= 0, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Tokens one copy of the language model keeps keys and values of."""

    max_tokens: int = 65_536  # over all open streams: four full windows
    question_tokens: int = 2_048  # of each stream: its questions being answered at one time

    def __post_init__(self) -> None:
        if not 1 <= self.question_tokens <= self.max_tokens:
            raise ConfigError(f"need 1 <= question_tokens <= max_tokens, got {self}")
