"""Exact float32 on a CPU, by oneDNN: weights lie in memory as its kernels read them.

Against MKL, which torch's own linear layers call, matmuls of a chunk are 5 to 25 % faster, and the
few rows of a batch of answers up to five times: eight questions cost little more than one.
Results differ by float32's rounding only. Small weights gain nothing and stay as they are.

oneDNN keeps a kernel for every number of rows it has seen, half a megabyte each, made in half a
millisecond. So batches are filled up to one of a few sizes, and cores.py bounds what is kept where
actors or jobs are imported before torch.
"""

import torch
from torch import Tensor, nn

from pipeline.families.qwen2_vl.vision import VisionTower
from pipeline.model.language import LanguageModel
from pipeline.model.matrix import BLOCK, FLOATS, Matrix
from pipeline.model.parallel import ParallelLinear, VocabParallelEmbedding, replace_linears
from pipeline.model.quick_norm import quicken_norms

MIN_ELEMENTS = 1 << 17  # below, calling oneDNN costs a single row more than it saves


class PackedLinear(nn.Module):
    """What a ParallelLinear computes. x: (S, in); returns (S, out).

    On a rank that is alone the residual is added in the matmul.
    """

    def __init__(self, layer: ParallelLinear) -> None:
        super().__init__()
        weight, self._bias = layer.folded()
        self._shape = weight.shape
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._parallel = layer.parallel

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            return self._parallel.all_reduce(_multiply(x, self._weight, self._bias))
        if self._parallel.size == 1:
            return _multiply_and_add(x, self._weight, self._bias, residual)
        return residual + self._parallel.all_reduce(_multiply(x, self._weight, self._bias))

    def matrix(self) -> Matrix | None:
        """Its weights as they lie; None if that is not known."""
        return _matrix(self._weight, self._shape, self._bias)


class PackedScores(nn.Module):
    """Logits of every token, as `VocabParallelEmbedding.score` gives them.

    A table that tokens are looked up in too is read as it is: oneDNN has kernels for that.
    """

    def __init__(self, table: VocabParallelEmbedding, *, is_shared: bool) -> None:
        super().__init__()
        weight = table.weight.detach()
        self._shape = weight.shape
        self._weight = weight if is_shared else torch.ops.mkldnn._reorder_linear_weight(weight)
        self._parallel = table.parallel
        self._vocab_size = table.vocab_size

    def score(self, hidden: Tensor) -> Tensor:
        """hidden: (R, D); returns (R, V) on every rank."""
        scores = _multiply(hidden, self._weight, None)
        return self._parallel.all_gather(scores)[..., : self._vocab_size]

    def matrix(self) -> Matrix | None:
        """The table as it lies; None if that is not known."""
        return _matrix(self._weight, self._shape, None)


@torch.inference_mode()
def pack(half: VisionTower | LanguageModel, *, min_elements: int = MIN_ELEMENTS) -> None:
    """Put packed layers in the place of the large ones of a loaded half, which are freed.

    For inference only: packed layers have no gradient and no parameters. Does nothing to what is
    not float32 on a CPU, or where torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        return

    def gains(weight: Tensor) -> bool:
        is_exact_on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        return is_exact_on_cpu and weight.numel() >= min_elements

    replace_linears(half, lambda layer: PackedLinear(layer) if gains(layer.weight) else layer)
    if isinstance(half, LanguageModel):
        quicken_norms(half)
        table = half.lm_head or half.embed_tokens
        if gains(table.weight):
            scores = PackedScores(table, is_shared=half.lm_head is None)
            half.lm_head = scores  # type: ignore[assignment]  # all anyone asks is its `score`
        half.quicken_words()


def _matrix(weight: Tensor, shape: torch.Size, bias: Tensor | None) -> Matrix | None:
    """Of packed weights or plain ones. oneDNN fills blocks up, a width to a multiple of 16."""
    if not weight.is_mkldnn:
        return Matrix.of_rows(weight, bias)
    num_outputs, num_inputs = shape
    num_blocks = -(-num_outputs // BLOCK)
    if torch.ops.mkldnn._nbytes(weight) != 4 * BLOCK * num_blocks * num_inputs:
        return None
    return Matrix(
        kind=FLOATS,
        num_outputs=num_outputs,
        num_inputs=num_inputs,
        address=torch.ops.mkldnn.data_ptr(weight),
        kept=weight,
        bias=bias,
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    num_rows = x.shape[0]
    filled = _filled(x, kernel_rows(num_rows))
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(filled, weight, bias, "none", [], "")
    return y[:num_rows]


def _multiply_and_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    num_rows = x.shape[0]
    num_filled = kernel_rows(num_rows)
    filled, other = _filled(x, num_filled), _filled(other, num_filled)
    y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(filled, other, weight, bias, "add")
    return y[:num_rows]


def kernel_rows(num_rows: int) -> int:
    """The rows of the kernel that multiplies so many: a power of two, or a multiple of 16 to 64."""
    if num_rows <= 16:
        return 1 << max(num_rows - 1, 0).bit_length()
    multiple = 16 if num_rows <= 64 else 32 if num_rows <= 256 else 64
    return -(-num_rows // multiple) * multiple


def _filled(x: Tensor, num_rows: int) -> Tensor:
    """x with rows of zeros after its own, which no other row depends on."""
    if len(x) == num_rows:
        return x
    filled = x.new_zeros(num_rows, x.shape[1])
    filled[: len(x)] = x
    return filled
