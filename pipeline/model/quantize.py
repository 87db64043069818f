"""The opt-in CPU mode: a language model whose matmuls run in int8.

Weights are rounded once, each output row with its own scale; activations are rounded as they come,
each batch with one scale (dynamic quantisation, torch's x86 kernels). Norms, attention, the
embedding table and the vision tower stay as they are.
Not covered: sameness. Words can differ from the exact model's, `measure` says by how much the
scores do; and as a batch shares its scale, from those of the same question asked alone.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import LanguageModel, Segment
from pipeline.model.parallel import ParallelLinear, VocabParallelEmbedding, replace_linears

LARGEST = 127  # of a signed byte; -128 stays unused, so a weight and its negative round alike


class Int8Linear(nn.Module):
    """y = x @ W.T + b, summed over the ranks of `parallel`: x (S, in), returns (S, out)."""

    def __init__(self, layer: ParallelLinear) -> None:
        super().__init__()
        weight, self.bias = layer.folded()
        self._packed = _pack(weight)
        self._parallel = layer.parallel

    def forward(self, x: Tensor) -> Tensor:
        y = _multiply(x, self._packed)
        return self._parallel.all_reduce(y if self.bias is None else y + self.bias)


class Int8Scores(nn.Module):
    """Logits of every token, as `VocabParallelEmbedding.score` gives them."""

    def __init__(self, table: VocabParallelEmbedding) -> None:
        super().__init__()
        self._packed = _pack(table.weight)
        self._parallel = table.parallel
        self._vocab_size = table.vocab_size

    def score(self, hidden: Tensor) -> Tensor:
        """hidden: (R, D); returns (R, V) on every rank."""
        return self._parallel.all_gather(_multiply(hidden, self._packed))[..., : self._vocab_size]


@dataclass(frozen=True, slots=True)
class LogitError:
    """How far a quantised model's logits are from the exact ones.

    relative: root mean square of the difference over that of the exact logits, centred per row.
    agreement: share of places where the likeliest token is the same.
    """

    relative: float
    agreement: float

    def __str__(self) -> str:
        return f"logits off by {self.relative:.1%}, same likeliest token in {self.agreement:.1%}"


def quantize(model: LanguageModel) -> None:
    """Put int8 layers in the place of a loaded model's linear ones, and free the exact weights.

    The embedding table is kept for looking up; tied to the output, it is there in both forms.
    ConfigError where torch has no int8 kernels, before anything is changed.
    """
    if torch.backends.quantized.engine not in ("x86", "fbgemm"):
        raise ConfigError(f"no int8 kernels on this CPU: {torch.backends.quantized.engine}")
    if model.norm.weight.device.type != "cpu":
        raise ConfigError(f"int8 runs on the CPU, the model is on {model.norm.weight.device}")
    replace_linears(model, Int8Linear)
    scores = Int8Scores(model.lm_head or model.embed_tokens)
    model.lm_head = scores  # type: ignore[assignment]  # all anyone asks of it is `score`


def measure(exact: LanguageModel, quantized: LanguageModel, ids: Sequence[int]) -> LogitError:
    """Compare the logits of two models at every token of one text."""
    expected, got = _logits(exact, ids), _logits(quantized, ids)
    centred = expected - expected.mean(-1, keepdim=True)  # a constant changes no probability
    difference = got - got.mean(-1, keepdim=True) - centred
    return LogitError(
        relative=float(difference.norm() / centred.norm()),
        agreement=float((expected.argmax(-1) == got.argmax(-1)).float().mean()),
    )


@torch.inference_mode()
def _logits(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """(S, V) float32."""
    embeddings = model.embed(torch.tensor(ids))
    hidden = model(embeddings, text_positions(0, len(ids)), [Segment(None, len(ids))])
    return model.logits(hidden).float()


def _pack(weight: Tensor) -> Any:
    """W (out, in) rounded to int8, each row by its own scale, in the kernel's layout."""
    weight = weight.detach().float()
    scale = (weight.abs().amax(1).double() / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    # Integer zero points: with float ones the same call packs a layout that the kernel misreads.
    zero = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # deprecated without a successor; torch is pinned
        rounded = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rounded, None)


def _multiply(x: Tensor, packed: Any) -> Tensor:
    """x @ W.T in the dtype of x."""
    # reduce_range: without VNNI the kernel adds byte products in 16 bits, which 8-bit x overflow.
    y: Tensor = torch.ops.quantized.linear_dynamic(x.float(), packed, True)
    return y.to(x.dtype)
