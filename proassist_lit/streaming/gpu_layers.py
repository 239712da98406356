"""The layers of a Llama-type backbone on a GPU, kernel by kernel, without a word to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.compiled import CompileError
from proassist_lit.streaming.llama import Llama

NUMBERS = (torch.bfloat16, torch.float16, torch.float32)

LOG2_E = 1.4426950408889634

KEYS = 64
"""Keys that are looked at together."""

BUSY = 264
"""Programs that keep a GPU busy: two for each of an H100's multiprocessors."""

MOST_SPLITS = 32


@dataclass(frozen=True)
class Shape:
    """What a captured graph is for.

    Attributes:
        rows: tokens, those of nobody included.
        tiles: of attention, likewise.
        tile_rows: tokens times query heads of a group that a tile has room for.
    """

    rows: int
    tiles: int
    tile_rows: int

    def splits(self, kv_heads: int) -> int:
        """Shares of a long context, a power of 2, so that few tiles keep the GPU busy."""
        splits = 1
        while 2 * splits * self.tiles * kv_heads <= BUSY and splits < MOST_SPLITS:
            splits *= 2
        return splits


@dataclass(frozen=True)
class Places:
    """Where tokens stand, on the device.

    Attributes:
        addresses: (L, 2) int64, of the keys and values of each layer.
        capacity: (1,) int64, tokens of a slot.
        slots: (rows,) int32, -1 for a row of nobody.
        positions: (rows,) int32, in their slots.
        tiles: (tiles, 4) int32: slot (-1 for nobody's), first row, tokens, tokens before them.
        cos: (positions, 1, size) of the rotation.
        sin: likewise.
    """

    addresses: Tensor
    capacity: Tensor
    slots: Tensor
    positions: Tensor
    tiles: Tensor
    cos: Tensor
    sin: Tensor


class GpuLayers:
    """The layers of a backbone that satisfies ``Llama.fits``. Queries' weights are copied.

    Args:
        model: in evaluation mode.

    Attributes:
        llama: its sizes.
        dtype: of weights, keys and values.

    Raises:
        CompileError: Triton is not there, or does not know such a model.
    """

    def __init__(self, model: AssistantModel) -> None:
        try:
            from proassist_lit.streaming import gpu_kernels
        except ImportError as error:
            raise CompileError(f"kernels for a GPU need Triton ({error})") from error
        self._kernels: Any = gpu_kernels
        self.llama = Llama(model)
        decoder = model.lm.get_decoder()
        self._norm = decoder.norm
        self._layers = [_Layer(layer) for layer in decoder.layers]
        self.dtype = self._layers[0].qkv_weight.dtype
        size = self.llama.head_size
        if self.dtype not in NUMBERS or size < 16 or size & (size - 1):
            raise CompileError(f"the kernels do not know {self.dtype} in heads of {size} features")

    def __len__(self) -> int:
        """L."""
        return len(self._layers)

    def __call__(self, x: Tensor, places: Places, shape: Shape) -> Tensor:
        """Run tokens through all layers; their keys and values are written.

        Args:
            x: (rows, D) embeddings; changed.
            places: where they stand.
            shape: rows and tiles.

        Returns:
            (rows, D) hidden states after the final norm.
        """
        delta: Tensor | None = None
        for index, layer in enumerate(self._layers):
            h = self._normalize(x, delta, layer.attention_norm)
            query = self._place(F.linear(h, layer.qkv_weight, layer.qkv_bias), index, places)
            mixed = self._attend(query, index, places, shape)
            delta = layer.out(mixed)
            h = self._normalize(x, delta, layer.feed_norm)
            delta = layer.down(self._gate(layer.gate(h), layer.up(h)))
        return self._normalize(x, delta, self._norm)

    def _normalize(self, x: Tensor, delta: Tensor | None, norm: Any) -> Tensor:
        out, size = torch.empty_like(x), x.shape[1]
        self._kernels.add_and_normalize[(len(x),)](
            x, x if delta is None else delta, norm.weight, out, norm.variance_epsilon,
            SIZE=size, BLOCK=_power_of_two(size), ADDS=delta is not None, num_warps=8,
        )  # fmt: skip
        return out

    def _place(self, qkv: Tensor, index: int, places: Places) -> Tensor:
        """The queries, rotated; keys and values go into the cache."""
        llama, layer = self.llama, self._layers[index]
        heads = llama.kv_heads * llama.group
        query = qkv.new_empty(len(qkv), heads * llama.head_size)
        norms = (layer.query_norm, layer.key_norm) if layer.query_norm is not None else None
        weights = (norms[0].weight, norms[1].weight) if norms else (qkv, qkv)  # not looked at
        self._kernels.place[(len(qkv), heads + 2 * llama.kv_heads)](
            qkv, *weights, query, places.addresses[index], places.capacity, places.slots,
            places.positions, places.cos, places.sin, norms[0].variance_epsilon if norms else 0.0,
            HEADS=heads, KV_HEADS=llama.kv_heads, SIZE=llama.head_size, HALF=llama.head_size // 2,
            NORMS=norms is not None, num_warps=1,
        )  # fmt: skip
        return query

    def _attend(self, query: Tensor, index: int, places: Places, shape: Shape) -> Tensor:
        llama, out = self.llama, torch.empty_like(query)
        splits = shape.splits(llama.kv_heads)
        parts = stats = query  # not looked at
        if splits > 1:
            num_parts = shape.tiles * llama.kv_heads * shape.tile_rows * splits
            parts = query.new_empty(num_parts * llama.head_size, dtype=torch.float32)
            stats = query.new_empty(num_parts * 2, dtype=torch.float32)
        sizes = {
            "KV_HEADS": llama.kv_heads, "GROUP": llama.group, "SIZE": llama.head_size,
            "ROWS": shape.tile_rows, "SPLITS": splits,
        }  # fmt: skip
        self._kernels.attend[(shape.tiles, llama.kv_heads, splits)](
            query, places.addresses[index], places.capacity, places.tiles, out, parts, stats,
            llama.scale * LOG2_E, KEYS=KEYS, **sizes,
            PRECISION="ieee" if self.dtype is torch.float32 else "tf32",
            num_warps=4, num_stages=2 if self.dtype is torch.float32 else 3,
        )  # fmt: skip
        if splits > 1:
            used = shape.tile_rows // llama.group * llama.group
            self._kernels.combine[(shape.tiles, llama.kv_heads, used)](
                places.tiles, out, parts, stats, **sizes, num_warps=1
            )
        return out

    def _gate(self, gates: Tensor, ups: Tensor) -> Tensor:
        out, count = torch.empty_like(gates), gates.numel()
        self._kernels.gate[(-(-count // 1024),)](gates, ups, out, count, BLOCK=1024)
        return out


class _Layer:
    """The weights of a layer, those of queries, keys and values in one."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        modules = (*three, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        if not all(type(module) is nn.Linear for module in modules):
            raise CompileError("the backbone has layers other than plain linear ones")
        self.qkv_weight = torch.cat([linear.weight.detach() for linear in three])
        self.qkv_bias = None
        if three[0].bias is not None:
            self.qkv_bias = torch.cat([linear.bias.detach() for linear in three])
        self.attention_norm, self.feed_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.query_norm: Any = getattr(attention, "q_norm", None)
        self.key_norm: Any = getattr(attention, "k_norm", None)
        self.out, self.gate, self.up, self.down = modules[3:]


def _power_of_two(size: int) -> int:
    """The next one from ``size`` on."""
    return 1 << (size - 1).bit_length()
