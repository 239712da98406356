"""The matrix products of a decoder layer: as the layer has them, or with weights packed ahead."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 16
"""Packed products take a multiple of so many rows: every new number of them costs set-up time."""

USUAL_ROWS = 64
"""Rows for which weights are laid out."""


def pad_rows(x: Tensor) -> Tensor:
    """(N, ...) with zeros below up to the next multiple of ``ROWS``."""
    missing = -len(x) % ROWS
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


class Products(Protocol):
    """What a layer multiplies by its weights. All tensors are (N, features)."""

    def qkv(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        ...

    def out(self, mixed: Tensor, x: Tensor) -> Tensor:
        """``x`` and the output of attention."""
        ...

    def feed_forward(self, h: Tensor, x: Tensor) -> Tensor:
        """``x`` and the gated feed-forward of ``h``."""
        ...


class PlainProducts:
    """By the layer's own modules, whatever they are."""

    def __init__(self, layer: Any) -> None:
        self._attention, self._mlp = layer.self_attn, layer.mlp

    def qkv(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        return self._attention.q_proj(h), self._attention.k_proj(h), self._attention.v_proj(h)

    def out(self, mixed: Tensor, x: Tensor) -> Tensor:
        """``x`` and the output of attention."""
        out: Tensor = x + self._attention.o_proj(mixed)
        return out

    def feed_forward(self, h: Tensor, x: Tensor) -> Tensor:
        """``x`` and the gated feed-forward of ``h``."""
        mlp = self._mlp
        out: Tensor = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
        return out


class PackedLinear:
    """A linear layer whose weight is laid out as oneDNN multiplies it; a copy of the weight.

    With few rows this is up to twice as fast as ``F.linear``, which lays the weight out anew at
    every call, and what is done to the product (silu, times, plus) is done before it is stored.
    PyTorch's operators for this are its compiler's own; ``fits`` looks whether they are there.

    Args:
        linears: one, or several whose products are wanted side by side; they must fit.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        weight = torch.cat([linear.weight.detach() for linear in linears])
        self._bias = None
        if linears[0].bias is not None:
            self._bias = torch.cat([linear.bias.detach() for linear in linears])
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), USUAL_ROWS)

    @staticmethod
    def fits(*modules: Any) -> bool:
        """Whether all are plain linear layers in float32 on a CPU, and the operators are there."""
        return (
            all(
                type(m) is nn.Linear
                and m.weight.dtype is torch.float32
                and m.weight.device.type == "cpu"
                and (m.bias is None) == (modules[0].bias is None)
                for m in modules
            )
            and torch._C._get_mkldnn_enabled()
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )

    def __call__(self, x: Tensor, *, then: str = "none") -> Tensor:
        """The product; ``then`` may be "swish" for silu."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, then, [], None
        )
        return out

    def with_other(self, x: Tensor, other: Tensor, how: str) -> Tensor:
        """The product and ``other``: ``how`` is "add" or "mul"."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, other, self._weight, self._bias, how)
        return out


class PackedProducts:
    """By packed weights; queries, keys and values in one product."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._sizes = [linear.out_features for linear in three]
        self._qkv, self._out = PackedLinear(*three), PackedLinear(attention.o_proj)
        self._gate, self._up = PackedLinear(mlp.gate_proj), PackedLinear(mlp.up_proj)
        self._down = PackedLinear(mlp.down_proj)

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether the layer's modules can be packed."""
        attention, mlp = layer.self_attn, layer.mlp
        return PackedLinear.fits(attention.q_proj, attention.k_proj, attention.v_proj) and all(
            PackedLinear.fits(linear)
            for linear in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def qkv(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        query, key, value = torch.split(self._qkv(h), self._sizes, dim=-1)
        return query, key, value

    def out(self, mixed: Tensor, x: Tensor) -> Tensor:
        """``x`` and the output of attention."""
        return self._out.with_other(mixed, x, "add")

    def feed_forward(self, h: Tensor, x: Tensor) -> Tensor:
        """``x`` and the gated feed-forward of ``h``."""
        gated = self._up.with_other(h, self._gate(h, then="swish"), "mul")
        return self._down.with_other(gated, x, "add")
