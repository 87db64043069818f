"""A language model's forward pass for a word that is alone, by compiled code (word_kernels.py).

For a rank that is alone, on a CPU, packed (packed_weights.py) or quantised (quantize.py). Every
product is tried first: where oneDNN lays weights out in another way than is known here, or a layer
is not of whole blocks, a word is computed as everything else is.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.cache import KVCache
from pipeline.model import word_kernels as kernels
from pipeline.model.attention import Segment
from pipeline.model.language import DecoderLayer, LanguageModel
from pipeline.model.machine_code import compile_for
from pipeline.model.matrix import BLOCK, WIDTHS, Matrix
from pipeline.model.quick_norm import QuickNorm
from pipeline.model.team import Array, Team

MAX_THREADS = 64
TOLERANCE = 1e-4  # of a product's largest output: sums are taken in another order


class WordPass:
    """What a LanguageModel's layers and its `logits` compute of one row.

    Not covered: sameness to the last bit with what they compute of several.
    """

    def __init__(self, model: LanguageModel, matrices: Sequence[Matrix], norms: Array) -> None:
        """matrices: of all layers, and the table's; norms: their weights, (layers, 2, D)."""
        config = model.config
        group, width = config.num_heads // config.num_kv_heads, config.num_heads * config.head_dim
        most = min(max(os.cpu_count() or 1, torch.get_num_threads()), MAX_THREADS)
        most_outputs = max(matrix.num_outputs for matrix in matrices[:-1])
        own = kernels.own_floats(
            max(matrix.num_inputs for matrix in matrices), group, config.head_dim
        )
        self._kept = matrices
        self._num_scores = matrices[-1].num_outputs
        self._job = np.zeros(1, kernels.JOB)
        self._job["num_layers"] = config.num_layers
        self._job["hidden_size"] = config.hidden_size
        self._job["num_heads"] = config.num_heads
        self._job["num_kv_heads"] = config.num_kv_heads
        self._job["head_dim"] = config.head_dim
        self._job["squared_least"] = config.hidden_size * config.rms_norm_eps
        self._pieces = np.zeros(kernels.MAX_PIECES, kernels.PIECE)
        self._team = Team(
            most,
            self._job,
            self._pieces,
            norms,
            _records(matrices),
            np.zeros(most_outputs + config.hidden_size, np.float32),
            np.zeros((max(most, config.num_kv_heads), group, config.head_dim + 2), np.float32),
            np.zeros((most, max(config.hidden_size, width)), np.float32),
            np.zeros((most, own), np.float32),
        )

    @classmethod
    def of(cls, model: LanguageModel) -> "WordPass | None":
        """None where a product is not what the model's own is."""
        table = model.lm_head or model.embed_tokens
        norms, matrices = [], []
        for layer in model.layers:
            if not isinstance(layer, DecoderLayer):
                return None
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                if not isinstance(norm, QuickNorm):
                    return None
                norms.append(norm.weight.detach().numpy())
            attention, mlp = layer.self_attn, layer.mlp
            for linear in (attention.qkv, attention.o_proj, mlp.gate_up, mlp.down_proj):
                matrix = _tried(linear.matrix(), linear)
                if matrix is None or matrix.num_outputs % BLOCK:
                    return None
                matrices.append(matrix)
            if matrices[-1].num_inputs % BLOCK:  # gates are as many
                return None
        scores = _tried(table.matrix(), table.score)
        if scores is None:
            return None
        weights = np.stack(norms).reshape(len(model.layers), 2, -1)
        return cls(model, [*matrices, scores], weights)

    def cache_of(self, segments: Sequence[Segment]) -> KVCache | None:
        """The cache that a single row continues, and wants a word after; None if that is not so.

        Nor where it continues others that continue others more than MAX_PIECES deep.
        """
        if len(segments) != 1 or segments[0].num_tokens > 1 or segments[0].num_wanted < 1:
            return None
        cache = segments[0].cache
        if cache is None or sum(1 for _ in _memories(cache)) > kernels.MAX_PIECES:
            return None
        return cache

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KVCache) -> Tensor:
        """The row after all layers, its keys and values in the cache, which is to be advanced.

        x: (1, D) float32; rotary: see `rotary_tables`; returns (1, D), not normalised.
        """
        x = x.detach().clone(memory_format=torch.contiguous_format)
        cos, sin = (table.contiguous() for table in rotary)
        memories = [*_memories(cache)]
        with self._team.turn:
            for piece, memory in zip(self._pieces, reversed(memories), strict=False):
                layer_floats, _, head_floats, _, _ = memory.stride()
                piece["keys"], piece["values"] = memory.data_ptr(), memory[0, 1].data_ptr()
                piece["length"] = memory.shape[3]
                piece["head_bytes"], piece["layer_bytes"] = 4 * head_floats, 4 * layer_floats
            self._job["num_pieces"] = len(memories)
            self._job["cos"], self._job["sin"] = cos.data_ptr(), sin.data_ptr()
            self._job["x"], self._job["scores"] = x.data_ptr(), 0
            self._team.lead()
        return x

    def score(self, hidden: Tensor) -> Tensor:
        """Logits of every token: hidden (1, D) float32; returns (1, V)."""
        hidden = hidden.contiguous()
        scores = hidden.new_empty(1, -(-self._num_scores // BLOCK) * BLOCK)
        with self._team.turn:
            self._job["x"], self._job["scores"] = hidden.data_ptr(), scores.data_ptr()
            self._team.lead()
        return scores[:, : self._num_scores]


def _memories(cache: KVCache) -> Iterator[Tensor]:
    """Keys and values of all its tokens and of one more, the last ones first."""
    yield cache.room(1)
    prefix = cache.prefix
    while prefix is not None:
        yield prefix.memory
        prefix = prefix.before


def _tried(matrix: Matrix | None, multiply: Callable[[Tensor], Tensor]) -> Matrix | None:
    """As compiled code multiplies a row as the layer does, (1, in) to (1, out); None if it doesn't.

    Tried rather than asked for: how wide blocks are, oneDNN chooses by sizes and threads.
    """
    if matrix is None:
        return None
    x = torch.linspace(-1, 1, matrix.num_inputs).sin().unsqueeze(0)
    expected = multiply(x)[0]
    own = np.zeros(kernels.own_floats(matrix.num_inputs, 0, 0), np.float32)
    for width in WIDTHS[matrix.kind]:
        known = replace(matrix, width=width)
        y = torch.empty(-(-matrix.num_outputs // BLOCK) * BLOCK)
        tried = (_records([known]), x[0].numpy(), y.numpy(), own)
        compile_for(kernels.multiply, *tried)
        kernels.multiply(*tried)
        difference = (y[: matrix.num_outputs] - expected).abs().max()
        if difference <= TOLERANCE * expected.abs().max():
            return known
    return None


def _records(matrices: Sequence[Matrix]) -> Array:
    """As the kernels take them; addresses are of what the matrices keep."""
    records = np.zeros(len(matrices), kernels.MATRIX)
    for record, matrix in zip(records, matrices, strict=True):
        record["kind"], record["weight"] = matrix.kind, matrix.address
        record["width"] = matrix.width
        record["num_outputs"], record["num_inputs"] = matrix.num_outputs, matrix.num_inputs
        for name in ("bias", "scale", "sums"):
            tensor = getattr(matrix, name)
            record[name] = 0 if tensor is None else tensor.data_ptr()
    return records
