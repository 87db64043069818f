"""Layers that own one rank's shard of a weight, and know where in a checkpoint it comes from.

Tensor parallelism as in Megatron-LM (arXiv 1909.08053): a column-parallel layer keeps some outputs,
a row-parallel one some inputs and adds up over the ranks. With one rank every collective is a no-op
and every shard is the whole, so a model built of these layers never asks how many ranks it has.

What a parameter holds is data: each layer lists the `TensorPart`s of its parameters, and whoever
reads a checkpoint (or a state dict, or writes one) walks `checkpoint_parts` without knowing any
layer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.matrix import Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPart:
    """A slice of one checkpoint tensor and its place in one parameter.

    The slice [start, stop) along `dim` of the checkpoint's tensor fills [offset, offset + length)
    along the same dimension of the parameter; the other dimensions agree.
    """

    tensor: str  # name in the checkpoint
    shape: tuple[int, ...]  # of the whole tensor in the checkpoint
    dim: int
    start: int
    stop: int
    offset: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def source(self, tensor: Tensor) -> Tensor:
        """The slice, of the whole checkpoint tensor."""
        return tensor.narrow(self.dim, self.start, self.length)

    def destination(self, parameter: Tensor) -> Tensor:
        """The place, as a view of the parameter outside autograd: `copy_` the source into it."""
        return parameter.detach().narrow(self.dim, self.offset, self.length)


@dataclass(frozen=True, slots=True)
class TensorParallel:
    """This process's place among the ranks that share one copy of the model."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def share(self, total: int, *, what: str) -> range:
        """This rank's equal share of `total` things; ConfigError if there is none."""
        if total % self.size:
            raise ConfigError(f"{total} {what} can't be split over {self.size} ranks")
        per_rank = total // self.size
        return range(self.rank * per_rank, (self.rank + 1) * per_rank)

    def share_or_copy(self, total: int, *, what: str) -> range:
        """Like `share`, but with more ranks than things neighbouring ranks hold the same one."""
        if total >= self.size:
            return self.share(total, what=what)
        if self.size % total:
            raise ConfigError(f"{total} {what} can't be copied evenly to {self.size} ranks")
        index = self.rank * total // self.size
        return range(index, index + 1)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place of `x`."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """The ranks' tensors side by side along the last dimension, in rank order."""
        if self.size == 1:
            return x
        shards = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(shards, x.contiguous(), group=self.group)
        return torch.cat(shards, dim=-1)


class ParallelLayer(nn.Module):
    """A layer that says where its parameters come from.

    parts: by parameter name; tensor names are relative to the module that holds this layer.
    """

    parts: dict[str, tuple[TensorPart, ...]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some output rows of the checkpoint's linear layer `name`, which has `total`."""

    name: str
    total: int
    kept: range


class ParallelLinear(ParallelLayer):
    """y = alpha * x @ W.T + beta * b, added up over the ranks of `parallel`.

    Inside the matmul the constant factors cost nothing. x: (S, in_features); returns (S, out)
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, parallel: TensorParallel, *, alpha: float, beta: float) -> None:
        super().__init__()
        self.parallel = parallel
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """residual: (S, out), added after the sum over ranks."""
        y = self.parallel.all_reduce(self._affine(x))
        return y if residual is None else residual + y

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """The same layer's weight and bias without factors."""
        bias = self._own_bias
        weight = self.weight.detach()
        if self.alpha != 1.0:
            weight = self.alpha * weight
        return weight, None if bias is None else self.beta * bias.detach()

    def matrix(self) -> Matrix | None:
        """Its weights as compiled code reads them."""
        return Matrix.of_rows(*self.folded())

    @property
    def _own_bias(self) -> Tensor | None:
        return self.bias if self.parallel.rank == 0 else None  # once in the sum, not once per rank

    def _affine(self, x: Tensor) -> Tensor:
        bias = self._own_bias
        if self.alpha == self.beta == 1.0:
            return F.linear(x, self.weight, bias)
        if bias is None:
            return F.linear(self.alpha * x, self.weight)
        return torch.addmm(bias, x, self.weight.t(), alpha=self.alpha, beta=self.beta)


class ColumnParallelLinear(ParallelLinear):
    """For this rank's outputs; several checkpoint layers may share the one matmul.

    x: (S, in_features) whole on every rank; returns (S, kept rows of all `rows` in order)
    scale: of the result, bias and all
    """

    def __init__(
        self, in_features: int, rows: Sequence[Rows], *, bias: bool, scale: float = 1.0
    ) -> None:
        super().__init__(TensorParallel(), alpha=scale, beta=scale)
        num_rows = sum(len(block.kept) for block in rows)
        self.weight = nn.Parameter(torch.empty(num_rows, in_features))
        self.bias = nn.Parameter(torch.empty(num_rows)) if bias else None
        self.parts = {"weight": _row_parts(rows, "weight", (in_features,))}
        if bias:
            self.parts["bias"] = _row_parts(rows, "bias", ())


def _row_parts(
    rows: Sequence[Rows], kind: str, trailing: tuple[int, ...]
) -> tuple[TensorPart, ...]:
    parts, offset = [], 0
    for block in rows:
        parts.append(
            TensorPart(
                tensor=f"{block.name}.{kind}",
                shape=(block.total, *trailing),
                dim=0,
                start=block.kept.start,
                stop=block.kept.stop,
                offset=offset,
            )
        )
        offset += len(block.kept)
    return tuple(parts)


class RowParallelLinear(ParallelLinear):
    """Where every rank holds some of the inputs; the sum over ranks is everyone's.

    x: (S, this rank's share of in_features); returns (S, out_features)
    scale: of the sum, before the bias
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        name: str,
        bias: bool,
        parallel: TensorParallel,
        scale: float = 1.0,
    ) -> None:
        super().__init__(parallel, alpha=scale, beta=1.0)
        kept = parallel.share(in_features, what=f"inputs of {name}")
        self.weight = nn.Parameter(torch.empty(out_features, len(kept)))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        shape = (out_features, in_features)
        weight = TensorPart(
            tensor=f"{name}.weight", shape=shape, dim=1, start=kept.start, stop=kept.stop, offset=0
        )
        self.parts = {"weight": (weight,)}
        if bias:
            self.parts["bias"] = (whole(f"{name}.bias", (out_features,)),)


def replace_linears(root: nn.Module, make: Callable[[ParallelLinear], nn.Module]) -> None:
    """Put make(layer) in the place of every linear layer below `root`.

    One after another: each is free, if nobody else holds it, before the next one is made.
    """
    parents = [module for module in root.modules() if not isinstance(module, ParallelLinear)]
    for parent in parents:
        for name in [name for name, _ in parent.named_children()]:
            layer = getattr(parent, name)
            if isinstance(layer, ParallelLinear):
                setattr(parent, name, make(layer))
            del layer


class VocabParallelEmbedding(ParallelLayer):
    """A table of token vectors, read by id on the way in and scored against on the way out.

    Rank r holds rows [r * ceil(V / size), ...); the last shard is padded when V does not divide.
    """

    def __init__(
        self, vocab_size: int, hidden_size: int, *, name: str, parallel: TensorParallel
    ) -> None:
        super().__init__()
        per_rank = -(-vocab_size // parallel.size)
        self.parallel = parallel
        self.vocab_size = vocab_size
        self.start = min(parallel.rank * per_rank, vocab_size)
        self.stop = min(self.start + per_rank, vocab_size)
        self.weight = nn.Parameter(torch.empty(per_rank, hidden_size))
        shape = (vocab_size, hidden_size)
        rows = TensorPart(
            tensor=f"{name}.weight", shape=shape, dim=0, start=self.start, stop=self.stop, offset=0
        )
        self.parts = {"weight": (rows,)}

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (S) int64; returns (S, D). Each rank looks up its own ids, the rest are zero."""
        if self.parallel.size == 1:
            return F.embedding(ids, self.weight)
        is_own = (ids >= self.start) & (ids < self.stop)
        rows = F.embedding((ids - self.start) * is_own, self.weight)
        return self.parallel.all_reduce(torch.where(is_own.unsqueeze(-1), rows, 0))

    def score(self, hidden: Tensor) -> Tensor:
        """Logits of every token: hidden (R, D); returns (R, V) on every rank."""
        return self.parallel.all_gather(F.linear(hidden, self.weight))[..., : self.vocab_size]

    def matrix(self) -> Matrix | None:
        """The table as compiled code reads it."""
        return Matrix.of_rows(self.weight)


def whole(tensor: str, shape: tuple[int, ...]) -> TensorPart:
    """The part that is a whole checkpoint tensor."""
    return TensorPart(tensor=tensor, shape=shape, dim=0, start=0, stop=shape[0], offset=0)


def checkpoint_parts(root: nn.Module) -> Iterator[tuple[str, TensorPart]]:
    """Every part of every parameter below `root`: (dotted parameter name, part).

    The parts' tensor names are dotted from `root` too. A parameter of a plain module (a norm) is a
    whole tensor of its own name. Padding rows of a vocabulary shard belong to no part.
    """
    for path, module in root.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, ParallelLayer):
                parts, above = module.parts[name], path.rpartition(".")[0]
            else:
                parts, above = (whole(name, tuple(parameter.shape)),), path
            for part in parts:
                yield _join(path, name), replace(part, tensor=_join(above, part.tensor))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
