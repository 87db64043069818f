"""A layer's weights, as compiled code reads them where they lie (word_kernels.py)."""

from dataclasses import dataclass

from torch import Tensor

BLOCK = 64  # outputs that are computed at a time
ROWS, FLOATS, BYTES = 0, 1, 2  # float32 row by row, or in blocks; int8 in blocks
INTEGERS = 1.5 * 2**23  # added to a small number, rounds it to a whole one, in the sum's last bits
# How many outputs oneDNN lays side by side: less where many threads would have too few blocks.
# Which it is, word_pass.py tries.
WIDTHS = {ROWS: (BLOCK,), FLOATS: (BLOCK, 16), BYTES: (BLOCK, 32)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matrix:
    """W of y = W @ x + b, (num_outputs, num_inputs).

    kind: ROWS, FLOATS or BYTES
    address: of the weights: row by row, or (blocks, num_inputs, width), or
        (blocks, num_inputs / 4, width, 4), with memory for a multiple of BLOCK outputs
    width: one of WIDTHS of its kind
    bias: (num_outputs) float32
    scale, sums: of BYTES, for each of so many outputs a factor, float32, and the sum of its
        weights, int32
    kept: whose memory the address is of
    """

    kind: int
    num_outputs: int
    num_inputs: int
    address: int
    kept: Tensor
    width: int = BLOCK
    bias: Tensor | None = None
    scale: Tensor | None = None
    sums: Tensor | None = None

    @classmethod
    def of_rows(cls, weight: Tensor, bias: Tensor | None = None) -> "Matrix":
        """Of float32 weights that lie row by row, or of a copy that does."""
        kept = weight.detach().contiguous()
        num_outputs, num_inputs = kept.shape
        return cls(
            kind=ROWS,
            num_outputs=num_outputs,
            num_inputs=num_inputs,
            address=kept.data_ptr(),
            kept=kept,
            bias=bias,
        )
