"""72B in bfloat16 on a GPU that is not there: shapes, dtypes, devices, and what a step costs.

Fake tensors have everything but values, so layers of 72B run here, one rank's share of eight too,
with a process group that is nobody. What is counted is what an eager step asks of a real GPU; norms
count seven there and one on a GPU.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import Sampling
from pipeline.engine.sampler import Sampler
from pipeline.engine.step import Addition, forward
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.families.qwen2_vl.vision import VisionTower
from pipeline.model.language import LanguageModel
from pipeline.model.parallel import TensorParallel
from pipeline.model.weights import allocate

CONFIG = replace(SIZES["72B"], num_layers=4)  # all are alike
CUDA = torch.device("cuda", 0)


class Count(TorchDispatchMode):
    """What was launched, copied between host and GPU, and said to the other ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = Counter[str]()
        self.sides = set[int]()  # of all that was written by one
        self.host_copies = 0
        self.collectives = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self.collectives += 1
        elif not func.is_view and is_on(result, CUDA):
            if any(is_on(each, torch.device("cpu")) for each in args):
                self.host_copies += 1
            elif "empty" not in str(func) and "detach" not in str(func):
                self.launches[str(func)] += 1
                if "copy_" not in str(func):
                    self.sides.update(result.shape if isinstance(result, torch.Tensor) else ())
        return result


def is_on(value: Any, device: torch.device) -> bool:
    values = value if isinstance(value, (list, tuple)) else (value,)
    tensors = [each for each in values if isinstance(each, torch.Tensor) and each.ndim]
    return bool(tensors) and all(each.device == device for each in tensors)


class Unguarded(TorchFunctionMode):
    """What torch does for these in C++, which a build for CPUs alone refuses on other devices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__:
            return indexed(*args)
        if func is torch.Tensor.copy_:
            return torch.ops.aten.copy_.default(*args)
        if func is torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype, device=args[0].device)
        return func(*args, **(kwargs or {}))


def indexed(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """tensor[index]."""
    keys = index if isinstance(index, tuple) else (index,)
    dim = 0
    for key in keys:
        if key is Ellipsis:
            dim = tensor.ndim - (len(keys) - 1 - keys.index(Ellipsis))
        elif key is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(key, slice):
            start, stop, _ = key.indices(tensor.shape[dim])
            tensor, dim = tensor.narrow(dim, start, max(stop - start, 0)), dim + 1
        elif isinstance(key, int):
            tensor = tensor.select(dim, key)
        else:
            tensor, dim = tensor.index_select(dim, key), dim + 1
    return tensor


@contextmanager
def counted() -> Iterator[Count]:
    with torch.no_grad(), FakeTensorMode(), Unguarded(), Count() as count:
        yield count


@pytest.fixture(params=[1, 8], ids=["TP1", "TP8"])
def parallel(request: pytest.FixtureRequest) -> Iterator[TensorParallel]:
    if request.param == 1:
        yield TensorParallel()
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield TensorParallel(0, request.param)
    dist.destroy_process_group()


def loaded(module: torch.nn.Module) -> Any:
    allocate(module, torch.bfloat16, CUDA)
    return module.requires_grad_(False)


def language(parallel: TensorParallel) -> LanguageModel:
    with torch.device("meta"):
        model = LanguageModel(CONFIG, parallel)
    return loaded(model)


def chunk(model: LanguageModel, past: int, size: int) -> Addition:
    cache = model.new_cache(past + size)
    cache.advance(past)
    tokens = torch.empty(size - 5, CONFIG.hidden_size, dtype=torch.bfloat16)
    return Addition(cache, range(5), text_positions(past, size), tokens)


def word(model: LanguageModel, past: int) -> Addition:
    cache = model.new_cache(past + 1)
    cache.advance(past)
    return Addition(cache, (7,), text_positions(past, 1), sampler=Sampler(Sampling()))


def test_a_chunk_is_prefilled(parallel: TensorParallel) -> None:
    with counted() as count:
        model = language(parallel)
        before = count.host_copies, count.collectives, count.launches.total()
        hidden = forward(model, [chunk(model, 4096, 1029)])
    assert hidden.shape[0] == 0
    assert_bounds(count, parallel, before, num_host_copies=4, num_launches=48)
    assert not {4096, 4096 + 1029} & count.sides  # keys and values are read where they lie


@pytest.mark.parametrize("num_streams", [1, 8, 24])
def test_words_of_many_streams_are_written(parallel: TensorParallel, num_streams: int) -> None:
    with counted() as count:
        model = language(parallel)
        additions = [word(model, 100 + number) for number in range(num_streams)]
        before = count.host_copies, count.collectives, count.launches.total()
        logits = forward(model, additions)
    assert logits.shape == (num_streams, CONFIG.vocab_size)
    assert (logits.dtype, logits.device) == (torch.bfloat16, CUDA)
    # Two appends and one kernel of attention are each stream's own.
    num_launches = 36 + 3 * num_streams
    assert_bounds(count, parallel, before, num_host_copies=2, num_launches=num_launches)


def assert_bounds(
    count: Count,
    parallel: TensorParallel,
    before: tuple[int, int, int],
    *,
    num_host_copies: int,
    num_launches: int,
) -> None:
    """num_launches: for each layer."""
    copies, collectives, launches = before
    assert count.host_copies - copies <= num_host_copies
    expected = 0 if parallel.size == 1 else 2 * CONFIG.num_layers + 2
    assert count.collectives - collectives <= expected
    bound = num_launches * CONFIG.num_layers + 30
    assert count.launches.total() - launches <= bound, count.launches


def test_questions_on_one_clip_read_its_prefix_once(parallel: TensorParallel) -> None:
    with counted() as count:
        model = language(parallel)
        cache = model.new_cache(4096)
        cache.advance(4096)
        asked = [
            Addition(
                cache.fork(capacity=8), (7,), text_positions(4096, 1), sampler=Sampler(Sampling())
            )
            for _ in range(10)
        ]
        forward(model, asked)
    kernels = sum(n for name, n in count.launches.items() if "flash_attention" in name)
    assert kernels == (10 + 1) * CONFIG.num_layers


def test_the_tower_takes_a_batch_of_frames() -> None:
    with counted() as count:
        with torch.device("meta"):
            tower = VisionTower(CONFIG.vision)
        tower = loaded(tower)
        frames = torch.empty(8, 364, 644, 3, dtype=torch.uint8, device=CUDA)
        tokens = tower(frames)
    assert (tokens.shape, tokens.dtype) == ((4 * 299, CONFIG.hidden_size), torch.bfloat16)
    assert count.host_copies <= 8  # means and deviations, for each pass
    assert not any("math" in name for name in count.launches)
