"""Keys and values of one stream: appended as the video arrives, shared by the questions on it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values that several caches read and none writes.

    memory: (layers, 2, K, length, head_dim), keys before values
    before: the prefix this one continues, if a fork was forked
    layers: per layer (keys, values), each (K, length, head_dim)
    """

    memory: Tensor
    before: "Prefix | None" = None
    layers: tuple[tuple[Tensor, Tensor], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _by_layer(self.memory))

    @property
    def length(self) -> int:
        return self.memory.shape[3]


class KVCache:
    """Preallocated memory for the keys and values of `capacity` tokens in every layer.

    A forward pass appends to each layer, then `advance`s once: if it fails midway, the cache still
    holds exactly what it held before.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        prefix: Prefix | None = None,
    ) -> None:
        shape = (num_layers, 2, num_kv_heads, capacity, head_dim)
        self._memory = torch.empty(shape, dtype=dtype, device=device)
        self._layers = _by_layer(self._memory)
        self._own_length = 0
        self._as_prefix: Prefix | None = None
        self.prefix = prefix

    @property
    def capacity(self) -> int:
        """Tokens of its own this cache can hold, after those of its prefix."""
        return self._memory.shape[3]

    @property
    def length(self) -> int:
        """Tokens held, those of the prefix included."""
        return self._shared_length + self._own_length

    @property
    def num_bytes(self) -> int:
        """Bytes of its own memory."""
        return self._memory.numel() * self._memory.element_size()

    @property
    def _shared_length(self) -> int:
        total, prefix = 0, self.prefix
        while prefix is not None:
            total, prefix = total + prefix.length, prefix.before
        return total

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's keys and values after the tokens held, and return all of its own.

        keys, values: (K, S, head_dim). Nothing is held before `advance`.
        returns: two views of the cache, (K, own tokens held + S, head_dim)
        """
        stop = self._stop(keys.shape[1])
        own_keys, own_values = self._layers[layer]
        own_keys[:, self._own_length : stop].copy_(keys)
        own_values[:, self._own_length : stop].copy_(values)
        return own_keys[:, :stop], own_values[:, :stop]

    def room(self, num_tokens: int) -> Tensor:
        """All its own memory up to the end of so many tokens more, which may be written there.

        returns: a view, (layers, 2, K, own tokens held + num_tokens, head_dim), keys before values
        """
        return self._memory[:, :, :, : self._stop(num_tokens)]

    def _stop(self, num_tokens: int) -> int:
        stop = self._own_length + num_tokens
        if stop > self.capacity:
            raise ValueError(f"cache of {self.capacity} tokens can't take {stop}")
        return stop

    def advance(self, num_tokens: int) -> None:
        """Hold the tokens just appended to every layer."""
        self._own_length += num_tokens

    def fork(self, *, capacity: int) -> "KVCache":
        """A cache that continues from here in memory of its own, sharing everything held so far.

        Forks of one cache at one length share one `Prefix`: a batch of them attends to it once.
        """
        return self._like(capacity, prefix=self._shared())

    def copy(self, *, capacity: int) -> "KVCache":
        """A cache that continues from here, with its own tokens copied and room for more.

        For a single continuation: all it reads lies in one piece.
        """
        copied = self._like(self._own_length + capacity, prefix=self.prefix)
        end = copied._own_length = self._own_length
        copied._memory[:, :, :, :end] = self._memory[:, :, :, :end]
        return copied

    def _like(self, capacity: int, *, prefix: Prefix | None) -> "KVCache":
        num_layers, _, num_kv_heads, _, head_dim = self._memory.shape
        return KVCache(
            num_layers=num_layers,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            capacity=capacity,
            dtype=self._memory.dtype,
            device=self._memory.device,
            prefix=prefix,
        )

    def _shared(self) -> Prefix | None:
        if self._own_length == 0:
            return self.prefix
        if self._as_prefix is None or self._as_prefix.length != self._own_length:
            self._as_prefix = Prefix(self._memory[:, :, :, : self._own_length], self.prefix)
        return self._as_prefix


def _by_layer(memory: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((keys, values) for keys, values in memory)
