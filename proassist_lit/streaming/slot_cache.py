"""Keys and values of many streams, each in a slot of its own."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.cache import KVCache, close_up
from proassist_lit.streaming.rotation import KeyRotation


class SlotCache:
    """Keys and values of S streams; preallocated, written in place.

    Args:
        model: gives layers, heads and type.
        num_slots: S.
        capacity: tokens of a slot.

    Attributes:
        lengths: tokens held by each slot.
        keys: of each layer, (S, heads, capacity, size).
        values: of each layer, (S, heads, capacity, size).
    """

    def __init__(self, model: AssistantModel, num_slots: int, capacity: int) -> None:
        attention = model.lm.get_decoder().layers[0].self_attn
        config = model.lm.config
        weight = attention.k_proj.weight
        shape = (num_slots, config.num_key_value_heads, capacity, attention.head_dim)
        self.num_slots, self.capacity = num_slots, capacity
        self.lengths = [0] * num_slots
        self.keys = [_zeros(shape, weight) for _ in range(config.num_hidden_layers)]
        self.values = [_zeros(shape, weight) for _ in range(config.num_hidden_layers)]

    @staticmethod
    def bytes_per_token(model: AssistantModel) -> int:
        """Memory of one token of one slot."""
        attention = model.lm.get_decoder().layers[0].self_attn
        config = model.lm.config
        size = 2 * config.num_key_value_heads * attention.head_dim
        return int(config.num_hidden_layers * size * attention.k_proj.weight.element_size())

    def view(self, slot: int) -> KVCache:
        """What a slot holds, as the cache of one stream; what it writes is written here."""
        view = KVCache(len(self.keys))
        for layer, keys, values in zip(view.layers, self.keys, self.values, strict=True):
            layer.hold(keys[slot][None], values[slot][None], self.lengths[slot])
        return view

    def crop(self, slot: int, length: int) -> None:
        """Forget everything of a slot after its first ``length`` tokens. Nothing is copied."""
        assert 0 <= length <= self.lengths[slot]
        self.lengths[slot] = length

    def keep(
        self, slot: int, ranges: Sequence[tuple[int, int]], rotation: KeyRotation | None
    ) -> None:
        """Forget everything of a slot but ``ranges`` and close them up; see ``KVCache.keep``."""
        layers = ((k[slot], v[slot]) for k, v in zip(self.keys, self.values, strict=True))
        self.lengths[slot] = close_up(layers, ranges, rotation)

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Let slot ``target`` hold the first ``length`` tokens of ``source``; all if None."""
        length = self.lengths[source] if length is None else length
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros, not garbage: a hidden key is multiplied by 0, and 0 * NaN is no 0.

    On a CPU they are zeroed pages of the system: untouched, they take neither time nor memory.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    return torch.frombuffer(_pages(size), dtype=like.dtype).view(shape)


def _pages(size: int) -> mmap.mmap:
    """Zeroed memory of this process alone."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)
