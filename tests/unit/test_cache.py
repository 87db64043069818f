"""The cache: appended in order, rolled back, shared by forks, never half written."""

import pytest
import torch
from torch import Tensor

from pipeline.engine.cache import KVCache

LAYERS, HEADS, DIM = 2, 2, 4


def new_cache(capacity: int = 10) -> KVCache:
    return KVCache(num_layers=LAYERS, num_kv_heads=HEADS, head_dim=DIM, capacity=capacity)


def append(cache: KVCache, num_tokens: int) -> Tensor:
    """Random keys (layers, K, S, head_dim), with values their negatives."""
    keys = torch.randn(LAYERS, HEADS, num_tokens, DIM)
    for layer in range(LAYERS):
        cache.append(layer, keys[layer], -keys[layer])
    cache.advance(num_tokens)
    return keys


def held(cache: KVCache, layer: int) -> Tensor:
    """Everything a query would see, prefixes first."""
    empty = torch.empty(HEADS, 0, DIM)
    pieces, prefix = [cache.append(layer, empty, empty)[0]], cache.prefix
    while prefix is not None:
        pieces.insert(0, prefix.layers[layer][0])
        prefix = prefix.before
    return torch.cat(pieces, dim=1)


def test_chunks_are_held_in_order() -> None:
    cache = new_cache()
    keys = torch.cat([append(cache, n) for n in (3, 1, 4)], dim=2)
    assert cache.length == 8
    for layer in range(LAYERS):
        assert torch.equal(held(cache, layer), keys[layer])


def test_what_a_failed_pass_wrote_is_not_held() -> None:
    cache = new_cache()
    keys = append(cache, 3)
    cache.append(0, torch.zeros(HEADS, 2, DIM), torch.zeros(HEADS, 2, DIM))  # and no advance
    assert cache.length == 3
    later = append(cache, 2)
    assert torch.equal(held(cache, 0), torch.cat([keys, later], dim=2)[0])


def test_more_than_the_capacity_is_refused_and_changes_nothing() -> None:
    cache = new_cache(4)
    append(cache, 3)
    with pytest.raises(ValueError, match="4 tokens can't take 5"):
        append(cache, 2)
    assert cache.length == 3


def test_forks_share_the_prefix_and_own_their_tails() -> None:
    cache = new_cache()
    keys = append(cache, 5)
    one, two = cache.fork(capacity=3), cache.fork(capacity=4)
    tails = append(one, 2), append(two, 4)
    assert one.prefix is two.prefix
    assert one.num_bytes == 3 * cache.num_bytes // 10
    for fork, tail in zip((one, two), tails, strict=True):
        assert fork.length == 5 + tail.shape[2]
        assert torch.equal(held(fork, 0), torch.cat([keys, tail], dim=2)[0])
    assert cache.length == 5


def test_a_prefix_is_read_where_it_lies() -> None:
    cache = new_cache()
    append(cache, 5)
    prefix = cache.fork(capacity=1).prefix
    empty = torch.empty(HEADS, 0, DIM)
    assert prefix is not None
    assert prefix.layers[1][0].data_ptr() == cache.append(1, empty, empty)[0].data_ptr()


def test_a_fork_outlives_what_its_parent_appends() -> None:
    cache = new_cache()
    keys = append(cache, 5)
    fork = cache.fork(capacity=2)
    append(cache, 3)
    later = cache.fork(capacity=2)
    assert torch.equal(held(fork, 0), keys[0])
    assert later.length == 8
    assert later.prefix is not fork.prefix


def test_forks_can_be_forked() -> None:
    cache = new_cache()
    keys = append(cache, 3)
    child = cache.fork(capacity=4)
    middle = append(child, 2)
    grandchild = child.fork(capacity=4)
    tail = append(grandchild, 1)
    assert grandchild.length == 6
    assert torch.equal(held(grandchild, 1), torch.cat([keys, middle, tail], dim=2)[1])


def test_forking_an_empty_fork_adds_no_piece() -> None:
    cache = new_cache()
    append(cache, 3)
    child = cache.fork(capacity=4)
    assert child.fork(capacity=2).prefix is child.prefix
    assert new_cache().fork(capacity=2).prefix is None


def test_a_copy_holds_the_same_and_is_nobodys_else() -> None:
    cache = new_cache()
    keys = append(cache, 3)
    child = cache.fork(capacity=4)
    middle = append(child, 2)
    copied = child.copy(capacity=1)
    append(child, 1)
    tail = append(copied, 1)
    assert copied.capacity == 3
    assert torch.equal(held(copied, 1), torch.cat([keys, middle, tail], dim=2)[1])
