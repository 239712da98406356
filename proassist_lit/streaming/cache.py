"""Keys and values of everything seen so far: preallocated, written in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from proassist_lit.streaming.rotation import KeyRotation


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer; grows by doubling, never copies on an ordinary step."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the shape, type and device of the first keys."""
        batch, heads, _, size = key_states.shape
        shape = (batch, heads, self.capacity)
        self.keys = key_states.new_empty((*shape, size))
        self.values = value_states.new_empty((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def hold(self, keys: Tensor, values: Tensor, length: int) -> None:
        """Work on (B, heads, capacity, size) keys and values of somebody else."""
        self.keys, self.values = keys, values
        self.capacity, self.length, self.is_initialized = keys.shape[2], length, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, size) keys and values; return all of them, as views."""
        start = self.length
        self.extend(key_states.shape[2], key_states, value_states)
        end = self.length
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def extend(self, num_tokens: int, key_states: Tensor, value_states: Tensor) -> None:
        """Hold so many more tokens, like these but yet to be written."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.length += num_tokens
        if self.length > self.capacity:
            self._grow(self.length)

    def _grow(self, needed: int) -> None:
        self.capacity = max(needed, 2 * self.capacity)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty((*old.shape[:2], self.capacity, old.shape[3]))
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(number of keys, index of the first) that a query of this length looks at."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """No limit of its own; the session keeps to ``stream.max_context``."""
        return -1


class KVCache(Cache):  # type: ignore[misc]
    """Cache of one stream, in the form that Hugging Face's attention asks for.

    Args:
        num_layers: L.
        capacity: tokens to make room for at first; it grows when needed.
    """

    def __init__(self, num_layers: int, capacity: int = 512) -> None:
        super().__init__(layers=[_Layer(capacity) for _ in range(num_layers)])

    def __len__(self) -> int:
        """Tokens held."""
        return int(self.layers[0].length)

    def extend(self, num_tokens: int, like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Hold so many more tokens of one stream; whoever asks writes them.

        Args:
            num_tokens: new tokens.
            like: (1, heads, any number, size), for the shape and type of keys and values.

        Returns:
            Keys and values of each layer, (1, heads, capacity, size).
        """
        for layer in self.layers:
            layer.extend(num_tokens, like, like)
        return [layer.keys for layer in self.layers], [layer.values for layer in self.layers]

    def crop(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens. Nothing is copied.

        Raises:
            ValueError: fewer tokens are held, or ``length`` is negative.
        """
        if not 0 <= length <= len(self):
            raise ValueError(f"KVCache.crop: cannot keep {length} of {len(self)} tokens.")
        for layer in self.layers:
            layer.length = length

    def keep(self, ranges: Sequence[tuple[int, int]], rotation: KeyRotation | None = None) -> None:
        """Forget everything but ``ranges`` and close them up.

        Args:
            ranges: (first token, one past the last), rising and apart.
            rotation: moves the keys that change their place; may be None while none does.

        Raises:
            ValueError: the ranges do not rise within the tokens held, or keys must be moved and
                ``rotation`` is None.
        """
        bounds = [bound for pair in ranges for bound in pair]
        if bounds != sorted(bounds) or (bounds and not 0 <= bounds[0] <= bounds[-1] <= len(self)):
            raise ValueError(
                f"KVCache.keep: the ranges {list(ranges)} must rise within {len(self)} tokens."
            )
        filled = [(layer.keys, layer.values) for layer in self.layers if layer.is_initialized]
        length = close_up(filled, ranges, rotation)
        for layer in self.layers:
            layer.length = length

    def fork(self) -> KVCache:
        """A copy that goes its own way."""
        other = KVCache(len(self.layers))
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if mine.is_initialized:
                theirs.capacity, theirs.length = mine.capacity, mine.length
                theirs.keys = torch.empty_like(mine.keys)
                theirs.values = torch.empty_like(mine.values)
                theirs.keys[:, :, : mine.length] = mine.keys[:, :, : mine.length]
                theirs.values[:, :, : mine.length] = mine.values[:, :, : mine.length]
                theirs.is_initialized = True
        return other


def close_up(
    layers: Iterable[tuple[Tensor, Tensor]],
    ranges: Sequence[tuple[int, int]],
    rotation: KeyRotation | None,
) -> int:
    """Move ``ranges`` of tokens together, at the front; return how many tokens they are.

    Args:
        layers: (..., capacity, size) keys and values of each layer, changed in place.
        ranges: (first token, one past the last), rising and apart.
        rotation: moves the keys that change their place; may be None while none does.

    Raises:
        ValueError: keys must be moved and ``rotation`` is None.
    """
    moves, length = [], 0
    for start, end in ranges:
        if start != length and end > start:
            if rotation is None:
                raise ValueError(
                    f"KVCache.keep: tokens {start}..{end - 1} change their place; a rotation of "
                    "their keys is needed."
                )
            moves.append((start, end, length))
        length += end - start
    if moves:
        assert rotation is not None
        for keys, values in layers:
            for start, end, place in moves:
                there = slice(place, place + end - start)
                keys[..., there, :] = rotation.move(keys[..., start:end, :], start, place)
                values[..., there, :] = values[..., start:end, :].clone()  # the two may overlap
    return length
