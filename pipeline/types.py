"""The words of vidray as values: geometry, grid, chunk, token chunk, plan, window.

Shape alphabet, used in every shape comment of the project:
    B batch   T frames   C channels   H W pixels   N patches   M merged tokens
    D hidden  S sequence V vocabulary K key-value heads
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # seconds to import, and most commands see no pixel
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Size:
    """A picture size in pixels."""

    height: int
    width: int

    @property
    def num_pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a model cuts a video into tokens; a checkpoint says it, nothing else does."""

    patch: int  # pixels on the side of one patch
    merge: int  # patches on the side of one merged token
    temporal: int  # frames in one temporal patch

    def __post_init__(self) -> None:
        if min(self.patch, self.merge, self.temporal) < 1:
            raise ValueError(f"geometry must be positive, got {self}")

    @property
    def factor(self) -> int:
        """Pixels on the side of one merged token; sides of every planned size are multiples."""
        return self.patch * self.merge

    @property
    def pixels_per_token(self) -> int:
        return self.factor**2

    @property
    def patches_per_token(self) -> int:
        return self.merge**2

    def num_steps(self, num_frames: int) -> int:
        """Temporal patches that so many frames need; the last one may have to be filled up."""
        return -(-num_frames // self.temporal)

    def grid(self, num_steps: int, size: Size) -> "Grid":
        """The grid of pictures of this size; ValueError if it is not cut into whole tokens."""
        if size.height % self.patch or size.width % self.patch:
            raise ValueError(f"{size} is not made of patches of {self.patch} pixels")
        return Grid(num_steps, size.height // self.patch, size.width // self.patch, self)


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of a clip: t temporal patches of h x w patches each."""

    t: int
    h: int
    w: int
    geometry: Geometry

    def __post_init__(self) -> None:
        merge = self.geometry.merge
        if min(self.t, self.h, self.w) < 1 or self.h % merge or self.w % merge:
            raise ValueError(f"grid needs t >= 1 and h, w multiples of {merge}, got {self}")

    @property
    def rows(self) -> int:
        """Merged tokens from top to bottom."""
        return self.h // self.geometry.merge

    @property
    def columns(self) -> int:
        """Merged tokens from left to right."""
        return self.w // self.geometry.merge

    @property
    def num_patches(self) -> int:
        return self.t * self.h * self.w

    @property
    def num_tokens(self) -> int:
        """Tokens after the merger."""
        return self.t * self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Merged tokens of one temporal patch."""
        return self.rows * self.columns

    @property
    def num_frames(self) -> int:
        return self.t * self.geometry.temporal

    @property
    def size(self) -> Size:
        return Size(self.h * self.geometry.patch, self.w * self.geometry.patch)


# Plans of this geometry were hashed, and the hashes stored, before a grid named its own.
_UNNAMED = Geometry(patch=14, merge=2, temporal=2)


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """A run of temporal patches [start, stop) of a window that travels together."""

    index: int
    start: int
    stop: int

    @property
    def num_steps(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MediaInfo:
    """What the header and the packet index say of a video stream.

    width, height: as displayed, upright, with square pixels. pts and is_key list every frame that
    is shown, in presentation order, in time_base units; the first need not be 0, and none is below
    the one before it. (T,) arrays, not tuples: ten hours at 60 fps are 17 MB
    instead of 90. The arrays make == compare identity.
    """

    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation_deg: int  # clockwise turn that makes the picture upright: 0, 90, 180, 270
    is_mirrored: bool
    sample_aspect_ratio: float
    time_base_num: int
    time_base_den: int
    pts: NDArray[np.int64] = field(repr=False)
    is_key: NDArray[np.bool_] = field(repr=False)
    duration_s: float  # from the first frame on; the last one is shown to the end of the file
    declared_duration_s: float | None
    is_still: bool  # an image: one frame, shown twice to the model
    flags: tuple[str, ...] = ()  # e.g. hdr_shown_as_sdr, interlaced, count_mismatch
    offset: int = 0  # from the file's start, where a player counts from, to pts[0]; in time_base

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.time_base_num, self.time_base_den) < 1:
            raise ValueError(f"size and time base must be positive, got {self}")
        if not math.isfinite(self.duration_s) or self.duration_s < 0:
            raise ValueError(f"duration must be finite, got {self.duration_s = }")
        if self.pts.ndim != 1 or self.pts.shape != self.is_key.shape:
            raise ValueError(f"need (T,) each, got {self.pts.shape = } {self.is_key.shape = }")
        if (self.pts[1:] < self.pts[:-1]).any():
            raise ValueError("pts must not decrease")
        if self.offset < 0:
            raise ValueError(
                f"the video begins with the file at the earliest, got {self.offset = }"
            )

    @property
    def offset_s(self) -> float:
        """When the first frame is shown, as a player counts; nothing is shown before."""
        return self.offset * self.time_base_num / self.time_base_den


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of the video with its own token budget and its own decoder stream.

    frame_pts[i] is the stamp of the frame a player shows at times_s[i]; the same stamp may repeat.
    times_s count from the first frame of the video.
    """

    index: int
    start_s: float
    end_s: float
    frame_pts: tuple[int, ...] = field(repr=False)
    times_s: tuple[float, ...] = field(repr=False)
    grid: Grid
    chunks: tuple[ChunkSpan, ...]

    @property
    def num_frames(self) -> int:
        return len(self.frame_pts)


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Everything decided before decoding; frozen before the first pixel is touched."""

    source_id: str  # identity of the bytes: etag or sha256
    preset: str
    fps: float  # frames taken per second of video; 0 for an image
    source_width: int  # as displayed; boxes are given in these pixels
    source_height: int
    duration_s: float
    is_still: bool
    time_base_num: int
    time_base_den: int
    windows: tuple[Window, ...]
    flags: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(window.grid.num_tokens for window in self.windows)

    @property
    def num_frames(self) -> int:
        return sum(window.num_frames for window in self.windows)

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over every field: equal plans, equal hash, on every machine."""
        fields = asdict(self)
        for window, named in zip(self.windows, fields["windows"], strict=True):
            if window.grid.geometry == _UNNAMED:
                del named["grid"]["geometry"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChunk:
    """Frames of one chunk, upright RGB at the planned size.

    frames: (T, H, W, C) uint8, of whole temporal patches and whole merged tokens.
    is_damaged marks placeholders, per frame.
    """

    plan_hash: str
    window_index: int
    index: int
    geometry: Geometry
    frames: "Tensor" = field(repr=False)
    is_damaged: tuple[bool, ...]

    def __post_init__(self) -> None:
        import torch  # noqa: PLC0415 - whoever has frames has loaded it

        frames = self.frames
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"expected (T, H, W, 3) uint8: {frames.shape = } {frames.dtype = }")
        if len(self.is_damaged) != frames.shape[0]:
            raise ValueError(f"{len(self.is_damaged) = } but {frames.shape[0] = }")

    @property
    def num_steps(self) -> int:
        return self.geometry.num_steps(len(self.is_damaged))

    @property
    def grid(self) -> Grid:
        """Of its frames."""
        return self.geometry.grid(self.num_steps, Size(*self.frames.shape[1:3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChunk:
    """A chunk after the vision tower and its merger.

    tokens: (M, D), M = num_steps * tokens_per_step.
    """

    plan_hash: str
    window_index: int
    index: int
    tokens: "Tensor" = field(repr=False)
