"""The vision tower of Qwen2-VL: uint8 frames in, one vector per merged token out.

Attention never leaves a temporal patch (two frames), so a clip's tokens don't depend on how it was
cut into chunks, and all temporal patches of equal size are one batch.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.config import VisionConfig
from pipeline.families.qwen2_vl.positions import inverse_frequencies, rotary_tables, rotate
from pipeline.model.parallel import (
    ColumnParallelLinear,
    ParallelLayer,
    RowParallelLinear,
    Rows,
    TensorParallel,
    whole,
)
from pipeline.types import Geometry, Grid, Size

NORM_EPS = 1e-6
ROTARY_THETA = 10_000.0
QUICK_GELU = 1.702
MAX_LEVEL = 255.0
PASS_PATCHES = 2048  # in one pass through the blocks: more would spill out of a CPU's caches


def cut(frames: Tensor, geometry: Geometry) -> Tensor:
    """Cut frames into patches, ordered so that each group that is merged is consecutive.

    frames: (T, H, W, C), T a multiple of temporal, H and W of patch * merge
    returns: (N, temporal * patch * patch * C), columns in the frames' own order
    """
    num_frames, height, width, channels = frames.shape
    temporal, merge, patch = geometry.temporal, geometry.merge, geometry.patch
    factor = geometry.factor
    if num_frames % temporal or height % factor or width % factor:
        rule = f"T % {temporal} == H % {factor} == W % {factor} == 0"
        raise ValueError(f"frames need {rule}, got {frames.shape = }")
    rows, columns = height // factor, width // factor
    blocks = frames.reshape(
        num_frames // temporal, temporal, rows, merge, patch, columns, merge, patch, channels
    )
    # (t, temporal, rows, merge, patch, columns, merge, patch, C)
    # -> (t, rows, columns, merge, merge | temporal, patch, patch, C)
    ordered = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7, 8)
    return ordered.flatten(5).flatten(0, 4)


class PatchEmbedding(ParallelLayer):
    """The 3D convolution over patches as one matmul on uint8 pixels.

    Kernel equals stride, so the convolution is a matmul; (x / 255 - mean) / std is linear, so it
    moves into the weight and a bias: W (x / 255 - mean) / std = (W / (255 std)) x - W (mean / std).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        geometry = config.geometry
        kernel = (geometry.temporal, geometry.patch, geometry.patch)
        shape = (config.embed_dim, config.in_channels, *kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.parts = {"weight": (whole("patch_embed.proj.weight", shape),)}
        self.mean, self.std = config.image_mean, config.image_std

    def forward(self, patches: Tensor) -> Tensor:
        """patches: (..., patch_dim) uint8 from `cut`; returns (..., embed_dim)."""
        weight, bias = self._folded()
        return F.linear(patches.to(weight.dtype), weight, bias)

    def _folded(self) -> tuple[Tensor, Tensor]:
        kernel = self.weight.permute(0, 2, 3, 4, 1).float()  # columns in the order of `cut`
        mean, std = kernel.new_tensor(self.mean), kernel.new_tensor(self.std)
        scaled = kernel / std
        bias = -(scaled * mean).flatten(1).sum(1)
        dtype = self.weight.dtype
        return (scaled / MAX_LEVEL).flatten(1).to(dtype), bias.to(dtype)


class VisionAttention(nn.Module):
    """Attention of every patch over the patches of its own temporal patch."""

    def __init__(self, config: VisionConfig, parallel: TensorParallel) -> None:
        super().__init__()
        width, self.head_dim = config.embed_dim, config.head_dim
        heads = parallel.share(config.num_heads, what="vision heads")
        self.num_heads = len(heads)
        rows = [
            Rows(
                "qkv",
                3 * width,
                range(first + heads.start * self.head_dim, first + heads.stop * self.head_dim),
            )
            for first in (0, width, 2 * width)
        ]
        self.qkv = ColumnParallelLinear(width, rows, bias=True)
        self.proj = RowParallelLinear(width, width, name="proj", bias=True, parallel=parallel)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """x: (N, embed_dim), temporal patches one after another, each as long as the tables."""
        num_patches = rotary[0].shape[0]
        heads = self.qkv(x).view(-1, num_patches, 3 * self.num_heads, self.head_dim)
        turned = rotate(heads[:, :, : 2 * self.num_heads], *rotary)
        query, keys = turned.transpose(1, 2).chunk(2, dim=1)  # (B, H, h * w, head_dim)
        values = heads[:, :, 2 * self.num_heads :].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape[0], -1))
        return projected


class VisionMLP(nn.Module):
    """fc2(quick_gelu(fc1(x))), where quick_gelu(x) = x * sigmoid(a * x) = silu(a * x) / a.

    SiLU is one pass over the widest tensor of the tower instead of three.
    """

    def __init__(self, config: VisionConfig, parallel: TensorParallel) -> None:
        super().__init__()
        width = int(config.embed_dim * config.mlp_ratio)
        kept = parallel.share(width, what="vision MLP features")
        self.fc1 = ColumnParallelLinear(
            config.embed_dim, [Rows("fc1", width, kept)], bias=True, scale=QUICK_GELU
        )
        self.fc2 = RowParallelLinear(
            width,
            config.embed_dim,
            name="fc2",
            bias=True,
            parallel=parallel,
            scale=1 / QUICK_GELU,
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.silu(self.fc1(x)))
        return output


class VisionBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: VisionConfig, parallel: TensorParallel) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.attn = VisionAttention(config, parallel)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.mlp = VisionMLP(config, parallel)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), rotary)
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class Merger(nn.Module):
    """Neighbouring patches, 2 x 2 as published, become one token of the language model's width."""

    def __init__(self, config: VisionConfig, parallel: TensorParallel) -> None:
        super().__init__()
        width = self.width = config.embed_dim * config.geometry.patches_per_token
        kept = parallel.share(width, what="merger features")
        self.ln_q = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.fc1 = ColumnParallelLinear(width, [Rows("mlp.0", width, kept)], bias=True)
        self.fc2 = RowParallelLinear(
            width, config.hidden_size, name="mlp.2", bias=True, parallel=parallel
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, embed_dim); returns (M, hidden_size)."""
        groups = self.ln_q(x).view(-1, self.width)
        tokens: Tensor = self.fc2(F.gelu(self.fc1(groups)))
        return tokens


class VisionTower(nn.Module):
    """Frames to tokens; heads and features are shared over the ranks like the language model's."""

    def __init__(self, config: VisionConfig, parallel: TensorParallel | None = None) -> None:
        super().__init__()
        parallel = parallel or TensorParallel()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.ModuleList(VisionBlock(config, parallel) for _ in range(config.depth))
        self.merger = Merger(config, parallel)
        self.num_weights = sum(weight.numel() for weight in self.blocks.parameters())

    def forward(self, frames: Tensor) -> Tensor:
        """Encode one chunk, or a batch of chunks of equal size.

        frames: (..., T, H, W, 3) uint8, whole temporal patches of whole tokens
        returns: (..., M, D), tokens in the order of `video_positions`
        """
        if frames.dtype != torch.uint8 or frames.ndim < 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"frames must be (..., T, H, W, 3) uint8, got {frames.shape = } {frames.dtype = }"
            )
        *batch, _, height, width, _ = frames.shape
        geometry = self.config.geometry
        patches = cut(frames.flatten(0, -4), geometry)
        grid = geometry.grid(1, Size(height, width))
        rotary = spatial_rotary(grid, head_dim=self.config.head_dim, device=frames.device)
        num_steps = max(1, PASS_PATCHES // grid.num_patches)
        passes = torch.split(patches, num_steps * grid.num_patches)
        tokens = torch.cat([self._encode(some, rotary) for some in passes])
        return tokens.view(*batch, -1, tokens.shape[-1])

    def _encode(self, patches: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x = self.patch_embed(patches)
        for block in self.blocks:
            x = block(x, rotary)
        tokens: Tensor = self.merger(x)
        return tokens


def spatial_rotary(grid: Grid, *, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rotary tables of the patches of one temporal patch, in the order of `cut`.

    Half of the pairs turn with the row, half with the column.
    returns: see `rotary_tables`, one row per patch
    """
    frequencies = inverse_frequencies(head_dim // 2, ROTARY_THETA, device=device)
    rows, columns = torch.arange(grid.h, device=device), torch.arange(grid.w, device=device)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)  # (h, w, 2)
    merge = grid.geometry.merge
    blocks = places.view(grid.rows, merge, grid.columns, merge, 2).transpose(1, 2)
    angles = (blocks.reshape(-1, 2, 1) * frequencies).flatten(1)
    return rotary_tables(angles)
