"""The opt-in CPU mode: a language model whose matmuls run in int8.

Weights are rounded once, each output row with its own scale. Activations are rounded as they come,
each row with its own scale, to 16 bits, and multiplied as two bytes. Real models have massive
activations, one value in a row hundreds of times the others, of which one byte would leave nothing
else. Two rows of bytes cost hardly more than one where the weights' bytes are what takes the time,
and half of what float32 does in a chunk's matmuls.
Sums are of whole numbers, so a row's products depend on that row alone, to the last bit.
Norms, attention, the embedding table and the vision tower stay as they are.
Not covered: sameness. Words can differ from the exact model's; `measure` says by how much the
scores do, `vidray model check --int8` on a checkpoint of one's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import LanguageModel, Segment
from pipeline.model.matrix import BLOCK, BYTES, INTEGERS, Matrix
from pipeline.model.packed_weights import kernel_rows
from pipeline.model.parallel import ParallelLinear, VocabParallelEmbedding, replace_linears
from pipeline.model.quick_norm import quicken_norms

LARGEST = 127  # of a signed byte; -128 stays unused, so a weight and its negative round alike
# The largest number that an activation is rounded to. Where the CPU has no VNNI, the kernels add
# pairs of byte products in 16 bits, which 7-bit activations alone do not overflow.
ACTIVATIONS = (127, 63)
TINY = torch.finfo(torch.float32).tiny


class Int8Weight:
    """W (out, in) as bytes, in the kernel's layout."""

    def __init__(self, weight: Tensor, *, largest: int) -> None:
        """largest: one of ACTIVATIONS, as `largest_activation` finds it."""
        weight = weight.detach().float()
        self._shape = weight.shape
        self._scale = (weight.abs().amax(1) / LARGEST).clamp_min(TINY)
        rounded = (weight / self._scale.unsqueeze(1)).round().to(torch.int8)
        self._sums = rounded.sum(1, dtype=torch.int32)
        self._packed = _pack(rounded)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._zero = largest + 1  # the digit that means 0
        self._base = 2 * self._zero
        self._steps = largest * self._base  # from 0 to the largest value of a row
        self._shift = torch.tensor(INTEGERS + self._zero * self._base + self._zero)

    def multiply(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """start + x @ W.T in the dtype of x: (S, in) to (S, out); start: (out) or (S, out).

        Few operations: at a row or two, all together cost as much as the product.
        """
        num_rows = len(x)
        step = torch.linalg.vector_norm(x, torch.inf, 1, keepdim=True, dtype=torch.float32)
        step.mul_(1 / self._steps)
        digits = self._digits(torch.addcdiv(self._shift, x, step))
        sums = _multiply(digits, self._packed, self._scale, self._zeros, zero=self._zero)
        low, high = sums[:num_rows], sums[num_rows : 2 * num_rows]
        steps = torch.add(low, high, alpha=self._base)
        y = steps.mul_(step) if start is None else torch.addcmul(start, steps, step)
        return y if y.dtype == x.dtype else y.to(x.dtype)

    def matrix(self, bias: Tensor | None) -> Matrix | None:
        """Itself as it lies; None where its activations are of fewer bits, for want of VNNI.

        After the blocks oneDNN keeps four bytes for each output.
        """
        num_outputs, num_inputs = self._shape
        num_filled = -(-num_outputs // BLOCK) * BLOCK
        num_bytes = torch.ops.mkldnn._nbytes(self._packed)
        if self._base != 256 or num_bytes != num_filled * (num_inputs + 4):
            return None
        filling = (0, num_filled - num_outputs)
        return Matrix(
            kind=BYTES,
            num_outputs=num_outputs,
            num_inputs=num_inputs,
            address=torch.ops.mkldnn.data_ptr(self._packed),
            kept=self._packed,
            bias=bias,
            scale=F.pad(self._scale, filling),
            sums=F.pad(self._sums, filling),
        )

    def _digits(self, numbers: Tensor) -> Tensor:
        """The low and then the high digits of whole numbers that are a float's last bits.

        numbers: (S, in) float32; returns (2 * S or more, in) uint8, filled up to one of few sizes
        as packed_weights.py says why.
        """
        num_rows, width = numbers.shape
        if self._base == 256:
            octets = numbers.view(torch.uint8)
            digits = octets.as_strided((2, num_rows, width), (1, octets.stride(0), 4))
        else:
            bits = numbers.view(torch.int32)
            digits = torch.stack((bits % self._base, bits // self._base % self._base))
            digits = digits.to(torch.uint8)
        num_filled = kernel_rows(2 * num_rows)
        if num_filled == 2 * num_rows:
            return digits.reshape(num_filled, width)
        filled = torch.full((num_filled, width), self._zero, dtype=torch.uint8)
        filled[: 2 * num_rows].view(2, num_rows, width).copy_(digits)
        return filled


class Int8Linear(nn.Module):
    """y = x @ W.T + b, summed over the ranks of `parallel`: x (S, in), returns (S, out)."""

    def __init__(self, layer: ParallelLinear, *, largest: int) -> None:
        super().__init__()
        weight, self.bias = layer.folded()
        self._weight = Int8Weight(weight, largest=largest)
        self._parallel = layer.parallel

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is not None and self.bias is None and self._parallel.size == 1:
            return self._weight.multiply(x, residual)
        y = self._parallel.all_reduce(self._weight.multiply(x, self.bias))
        return y if residual is None else residual + y

    def matrix(self) -> Matrix | None:
        """Its weights as they lie; None if that is not known."""
        return self._weight.matrix(self.bias)


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

    def matrix(self) -> Matrix | None:
        """The table as it lies; None if that is not known."""
        return self._weight.matrix(None)


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
    quicken_norms(model)
    replace_linears(model, lambda layer: Int8Linear(layer, largest=largest))
    scores = Int8Scores(model.lm_head or model.embed_tokens, largest=largest)
    model.lm_head = scores  # type: ignore[assignment]  # all anyone asks of it is `score`
    model.quicken_words()


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
