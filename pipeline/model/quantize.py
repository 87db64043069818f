"""The opt-in CPU mode: a language model whose matmuls run in int8.

Weights are rounded once, each output row with its own scale; activations as they come, each row
with its own, by oneDNN's kernels for bytes. Real models have massive activations, one value in a
row hundreds of times the others: such a row gets a second byte for what the first rounds away.
Sums are of whole numbers, so a row's products depend on that row alone, to the last bit.
Norms, attention, the embedding table and the vision tower stay as they are.
Not covered: sameness. Words can differ from the exact model's; `measure` says by how much the
scores do, `vidray model check --int8` on a checkpoint of one's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import LanguageModel, Segment
from pipeline.model.packed_weights import kernel_rows
from pipeline.model.parallel import ParallelLinear, VocabParallelEmbedding, replace_linears

LARGEST = 127  # of a signed byte; -128 stays unused, so a weight and its negative round alike
# The largest number that an activation is rounded to. Where the CPU has no VNNI, the kernels add
# pairs of byte products in 16 bits, which 7-bit activations alone do not overflow.
ACTIVATIONS = (127, 63)
# A row needs a second byte if its largest value is more than so many times its mean one. With 4 to
# 5 times, as an ordinary row of thousands has, one byte adds less than the weights' own rounding.
SPREAD = 5
TINY = torch.finfo(torch.float32).tiny


class Int8Weight:
    """W (out, in) as bytes, in the kernel's layout. Rows of x with a wide spread count twice."""

    def __init__(self, weight: Tensor, *, largest: int) -> None:
        """largest: one of ACTIVATIONS, as `largest_activation` finds it."""
        weight = weight.detach().float()
        self._largest = largest
        self._scale = (weight.abs().amax(1) / LARGEST).clamp_min(TINY)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._packed = _pack((weight / self._scale.unsqueeze(1)).round().to(torch.int8))

    def multiply(self, x: Tensor) -> Tensor:
        """x @ W.T in the dtype of x: (S, in) to (S, out)."""
        size = x.abs().float()
        peak = size.amax(1, keepdim=True)
        scale = peak.clamp_min(TINY * self._largest) / self._largest
        scaled = x / scale  # float32, whatever x is
        first = scaled.round()
        is_wide = peak > SPREAD * size.mean(1, keepdim=True)
        if not is_wide.any():
            return (self._sums(first) * scale).to(x.dtype)
        wide = is_wide.squeeze(1).nonzero().squeeze(1)
        finer = scale[wide] / (2 * self._largest)
        second = ((scaled[wide] - first[wide]) * (2 * self._largest)).round()
        sums = self._sums(torch.cat([first, second]))  # together: the weights are read once
        y = sums[: len(x)] * scale
        return y.index_add_(0, wide, sums[len(x) :] * finer).to(x.dtype)

    def _sums(self, numbers: Tensor) -> Tensor:
        """Products of rows of whole numbers, times the weights' scales; (S, out) float32.

        Filled up with rows of zeros to one of few sizes, as packed_weights.py says why.
        """
        num_rows, zero = len(numbers), self._largest + 1
        filled = (numbers + zero).to(torch.uint8)
        if (num_filled := kernel_rows(num_rows)) != num_rows:
            filled = torch.cat([filled, filled.new_zeros(num_filled - num_rows, filled.shape[1])])
        sums = _multiply(filled, self._packed, self._scale, self._zeros, zero=zero)
        return sums[:num_rows]


class Int8Linear(nn.Module):
    """y = x @ W.T + b, summed over the ranks of `parallel`: x (S, in), returns (S, out)."""

    def __init__(self, layer: ParallelLinear, *, largest: int) -> None:
        super().__init__()
        weight, self.bias = layer.folded()
        self._weight = Int8Weight(weight, largest=largest)
        self._parallel = layer.parallel

    def forward(self, x: Tensor) -> Tensor:
        y = self._weight.multiply(x)
        return self._parallel.all_reduce(y if self.bias is None else y + self.bias)


class Int8Scores(nn.Module):
    """Logits of every token, as `VocabParallelEmbedding.score` gives them."""

    def __init__(self, table: VocabParallelEmbedding, *, largest: int) -> None:
        super().__init__()
        self._weight = Int8Weight(table.weight, largest=largest)
        self._parallel = table.parallel
        self._vocab_size = table.vocab_size

    def score(self, hidden: Tensor) -> Tensor:
        """hidden: (R, D); returns (R, V) on every rank."""
        return self._parallel.all_gather(self._weight.multiply(hidden))[..., : self._vocab_size]


@dataclass(frozen=True, slots=True)
class LogitError:
    """How far a quantised model's logits are from the exact ones.

    relative: root mean square of the difference over that of the exact logits, centred per row.
    agreement: share of the num_tokens places where the likeliest token is the same.
    """

    relative: float
    agreement: float
    num_tokens: int

    def __str__(self) -> str:
        same = f"same likeliest token in {self.agreement:.1%} of {self.num_tokens}"
        return f"logits off by {self.relative:.1%}, {same}"


@torch.inference_mode()
def quantize(model: LanguageModel) -> None:
    """Put int8 layers in the place of a loaded model's linear ones, and free the exact weights.

    The embedding table is kept for looking up; tied to the output, it is there in both forms.
    ConfigError where torch has no int8 kernels, before anything is changed.
    """
    if model.norm.weight.device.type != "cpu":
        raise ConfigError(f"int8 runs on the CPU, the model is on {model.norm.weight.device}")
    largest = largest_activation()
    replace_linears(model, lambda layer: Int8Linear(layer, largest=largest))
    scores = Int8Scores(model.lm_head or model.embed_tokens, largest=largest)
    model.lm_head = scores  # type: ignore[assignment]  # all anyone asks of it is `score`


def measure(exact: LanguageModel, quantized: LanguageModel, ids: Sequence[int]) -> LogitError:
    """Compare the logits of two models at every token of one text."""
    return _compare(_logits(exact, ids), _logits(quantized, ids))


def quantize_and_measure(model: LanguageModel, ids: Sequence[int]) -> LogitError:
    """`quantize`, and compare the logits after it with those before: one model in memory."""
    before = _logits(model, ids)
    quantize(model)
    return _compare(before, _logits(model, ids))


def _compare(expected: Tensor, got: Tensor) -> LogitError:
    """Of logits (S, V)."""
    centred = expected - expected.mean(-1, keepdim=True)  # a constant changes no probability
    difference = got - got.mean(-1, keepdim=True) - centred
    return LogitError(
        relative=float(difference.norm() / centred.norm()),
        agreement=float((expected.argmax(-1) == got.argmax(-1)).float().mean()),
        num_tokens=len(expected),
    )


@torch.inference_mode()
def _logits(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """(S, V) float32."""
    embeddings = model.embed(torch.tensor(ids))
    hidden = model(embeddings, text_positions(0, len(ids)), [Segment(None, len(ids))])
    return model.logits(hidden).float()


@cache
def largest_activation() -> int:
    """The largest of ACTIVATIONS whose sums come out whole on this CPU; ConfigError if none does.

    Tried rather than asked for: what a CPU is said to have is not what oneDNN chooses to use.
    """
    for largest in ACTIVATIONS:
        if _sums_are_whole(largest):
            return largest
    raise ConfigError("no int8 kernels on this CPU")


def _sums_are_whole(largest: int) -> bool:
    """Whether products of the largest bytes there are come out right, for one row and for many."""
    weight = torch.full((64, 256), LARGEST, dtype=torch.int8)
    weight[::2, ::3] = -LARGEST
    scale, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int64)
    zero = largest + 1
    try:
        packed = _pack(weight)
        for num_rows in (1, 16):
            x = torch.full((num_rows, 256), zero + largest, dtype=torch.uint8)
            x[:, ::5] = 1
            sums = _multiply(x, packed, scale, zeros, zero=zero)
            if not torch.equal(sums, (x.float() - zero) @ weight.float().t()):
                return False
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _multiply(x: Tensor, packed: Tensor, scale: Tensor, zeros: Tensor, *, zero: int) -> Tensor:
    """(x - zero) @ W.T * scale, float32. x: (S, in) uint8; scale, zeros: (out)."""
    y: Tensor = torch.ops.onednn.qlinear_pointwise.default(
        x, 1.0, zero, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y
