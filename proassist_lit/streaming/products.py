"""The matrix products of a decoder layer: as the layer has them, or merged for many rows."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 16
"""Merged products take a multiple of so many rows: odd numbers of them are slow."""


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


class MergedLinear:
    """Linear layers that read the same rows, as one product on a CPU; a copy of their weights.

    The product is taken with the weight on the left: with tens of rows a BLAS is up to 1.4 times
    as fast that way round.

    Args:
        linears: they must fit.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        weights = [linear.weight.detach() for linear in linears]
        self._weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self._bias = None
        if linears[0].bias is not None:
            self._bias = torch.cat([linear.bias.detach() for linear in linears])[:, None]

    @staticmethod
    def fits(*modules: Any) -> bool:
        """Whether all are plain linear layers on a CPU."""
        return all(
            type(m) is nn.Linear
            and m.weight.device.type == "cpu"
            and (m.bias is None) == (modules[0].bias is None)
            for m in modules
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in) rows to (out, N) columns."""
        out = self._weight @ x.t()
        return out if self._bias is None else out.add_(self._bias)


class MergedProducts:
    """Queries, keys and values as one product, gates and what they let through as another."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._sizes = [linear.out_features for linear in three]
        self._qkv, self._out = MergedLinear(*three), MergedLinear(attention.o_proj)
        self._gate_up = MergedLinear(mlp.gate_proj, mlp.up_proj)
        self._down = MergedLinear(mlp.down_proj)

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether the layer's modules can be merged."""
        attention, mlp = layer.self_attn, layer.mlp
        return (
            MergedLinear.fits(attention.q_proj, attention.k_proj, attention.v_proj)
            and MergedLinear.fits(attention.o_proj)
            and MergedLinear.fits(mlp.gate_proj, mlp.up_proj)
            and MergedLinear.fits(mlp.down_proj)
        )

    def qkv(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        query, key, value = torch.split(self._qkv(h).t().contiguous(), self._sizes, dim=-1)
        return query, key, value

    def out(self, mixed: Tensor, x: Tensor) -> Tensor:
        """``x`` and the output of attention."""
        return x + self._out(mixed).t()

    def feed_forward(self, h: Tensor, x: Tensor) -> Tensor:
        """``x`` and the gated feed-forward of ``h``."""
        gate, up = self._gate_up(h).chunk(2)
        return x + self._down(F.silu(gate).mul_(up).t()).t()
