"""A Llama-type backbone on a CPU by compiled kernels: weights in panels, many rows at a time."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterable, Sequence
from ctypes import POINTER, Structure, c_double, c_int, c_void_p
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.compiled import CompileError, load_kernels
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.llama import Llama

log = logging.getLogger(__name__)

PIECE = 8
"""Most tokens of one stream that one thread looks back from at a time."""


T = TypeVar("T")


def native_or_none(make: Callable[[], T], kernels: Kernels, dtype: torch.dtype) -> T | None:
    """What ``make`` gives; None where torch is to be taken instead.

    By themselves float64 models are left to torch: whoever takes them wants Hugging Face's numbers
    to the last place, its norms, which round through float32, included.

    Args:
        make: raises ``CompileError`` where it cannot be.
        kernels: compiled or torch.
        dtype: of the weights.

    Raises:
        ConfigError: compiled kernels are asked for, and cannot be had.
    """
    if kernels is Kernels.TORCH or (kernels is Kernels.AUTO and dtype is torch.float64):
        return None
    try:
        return make()
    except CompileError as reason:
        if kernels is Kernels.COMPILED:
            raise ConfigError(
                f"stream.kernels=compiled: {reason}; install a C compiler (gcc) and, on a GPU, "
                "Triton, or set stream.kernels=auto."
            ) from reason
        _tell(str(reason))
        return None


@cache
def _tell(reason: str) -> None:
    """Once for each reason: a decoder is made at every evaluation."""
    log.info("streaming by torch, not by compiled kernels: %s", reason)


class _Piece(Structure):
    _fields_ = [(name, c_int) for name in ("slot", "row", "count", "past")]


class _Matrix(Structure):
    _fields_ = [("panels", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        *((f"{name}_norm", c_void_p) for name in ("attention", "query", "key", "feed")),
        *((name, _Matrix) for name in ("qkv", "out", "gate_up", "down")),
    ]


class _Model(Structure):
    _fields_ = [
        *((name, c_int) for name in ("hidden", "inner", "heads", "kv_heads", "num_layers")),
        *((name, c_double) for name in ("eps", "scale")),
        ("layers", POINTER(_Layer)),
        ("norm", c_void_p),
    ]


class NativeMatrix:
    """The weights of linear layers that read the same rows, in panels; a copy.

    Args:
        kernels: for the weights' type.
        linears: they must satisfy ``is_plain``.
        paired: the first two alternate, vector by vector: gates and what they let through.
    """

    def __init__(
        self, kernels: ctypes.CDLL, linears: Sequence[nn.Linear], *, paired: bool = False
    ) -> None:
        lanes = int(kernels.lanes())
        weights = [linear.weight.detach() for linear in linears]
        biases = [
            weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
            for linear, weight in zip(linears, weights, strict=True)
        ]
        self.width = sum(map(len, weights))
        if paired:
            weight, bias = (_interleave(*parts, lanes=lanes) for parts in (weights, biases))
        else:
            weight = _pad(torch.cat(weights), 2 * lanes)
            bias = _pad(torch.cat(biases), 2 * lanes)
        self._panels = weight.view(-1, 2 * lanes, weight.shape[1]).transpose(1, 2).contiguous()
        self._bias = bias.contiguous()
        self.struct = _Matrix(self._panels.data_ptr(), self._bias.data_ptr())


def _pad(weight: Tensor, multiple: int) -> Tensor:
    """Zeros below, up to a multiple of so many rows."""
    missing = -len(weight) % multiple
    return torch.cat([weight, weight.new_zeros(missing, *weight.shape[1:])])


def _interleave(first: Tensor, second: Tensor, *, lanes: int) -> Tensor:
    """``lanes`` rows of the first, as many of the second, and so on."""
    both = [_pad(part, lanes).view(-1, lanes, *part.shape[1:]) for part in (first, second)]
    return torch.stack(both, 1).flatten(0, 2)


def is_plain(*modules: Any) -> bool:
    """Whether all are linear layers, on a CPU, of one type of numbers."""
    return all(
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype is modules[0].weight.dtype
        for module in modules
    )


class NativeLlama:
    """The layers of a backbone that satisfies ``Llama.fits``, by compiled kernels.

    The weights are copied as they are now; what training makes of them later is not seen.

    Args:
        model: in evaluation mode.

    Raises:
        CompileError: not on this machine, or not with these weights.
    """

    def __init__(self, model: AssistantModel) -> None:
        decoder, llama = model.lm.get_decoder(), Llama(model)
        layers = list(decoder.layers)
        for layer in layers:
            attention, mlp = layer.self_attn, layer.mlp
            if not is_plain(
                attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
                mlp.gate_proj, mlp.up_proj, mlp.down_proj,
            ):  # fmt: skip
                raise CompileError("the backbone has layers other than plain linear ones on a CPU")
        self.dtype = layers[0].self_attn.q_proj.weight.dtype
        self._kernels = load_kernels(self.dtype, llama.head_size)
        self._angles, self._head_size = llama.angles, llama.head_size
        self._kept: list[Any] = []  # what the structures point to
        self._layers = (_Layer * len(layers))(*map(self._pack, layers))
        attention, mlp = layers[0].self_attn, layers[0].mlp
        self._model = _Model(
            hidden=attention.q_proj.in_features,
            inner=mlp.gate_proj.out_features,
            heads=llama.kv_heads * llama.group,
            kv_heads=llama.kv_heads,
            num_layers=len(layers),
            eps=float(decoder.norm.variance_epsilon),
            scale=llama.scale,
            layers=self._layers,
            norm=self._weight(decoder.norm),
        )

    def empty_keys(self) -> Tensor:
        """(1, heads, 0, size): the shape and type of keys of no token, and of values."""
        return torch.empty(1, self._model.kv_heads, 0, self._head_size, dtype=self.dtype)

    def _pack(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        return _Layer(
            attention_norm=self._weight(layer.input_layernorm),
            query_norm=self._weight(getattr(attention, "q_norm", None)),
            key_norm=self._weight(getattr(attention, "k_norm", None)),
            feed_norm=self._weight(layer.post_attention_layernorm),
            qkv=self._matrix(three),
            out=self._matrix([attention.o_proj]),
            gate_up=self._matrix([mlp.gate_proj, mlp.up_proj], paired=True),
            down=self._matrix([mlp.down_proj]),
        )

    def _matrix(self, linears: Sequence[nn.Linear], *, paired: bool = False) -> _Matrix:
        matrix = NativeMatrix(self._kernels, linears, paired=paired)
        self._kept.append(matrix)
        return matrix.struct

    def _weight(self, norm: Any) -> int | None:
        """Address of a copy of a norm's weight."""
        if norm is None:
            return None
        weight = norm.weight.detach().to(self.dtype).clone()
        self._kept.append(weight)
        return int(weight.data_ptr())

    def __call__(
        self,
        inputs_embeds: Tensor,
        runs: Iterable[tuple[int, int, int]],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """Feed new tokens of some streams; see ``CompiledLlama``."""
        pieces: list[_Piece] = []
        row = end = 0
        for slot, past, count in runs:
            for first in range(0, count, PIECE):
                part = min(PIECE, count - first)
                pieces.append(_Piece(slot, row, part, past + first))
                row += part
            end = max(end, past + count)
        assert row == len(inputs_embeds)
        assert end <= keys[0].shape[2]
        hidden = inputs_embeds.detach().to(self.dtype, copy=True).contiguous()
        cos, sin = self._angles(end, hidden)
        work = hidden.new_empty(row * int(self._kernels.work_per_row(ctypes.byref(self._model))))
        self._kernels.forward(
            ctypes.byref(self._model), _address(hidden), row, (_Piece * len(pieces))(*pieces),
            len(pieces), _addresses(keys), _addresses(values), keys[0].shape[2], _address(cos),
            _address(sin), _address(work), torch.get_num_threads(),
        )  # fmt: skip
        return hidden


class NativeVocabulary:
    """An output matrix, of which only the best output of each row is wanted.

    Args:
        head: the matrix; copied.
        head_size: of the backbone's attention, for which kernels are there already.

    Raises:
        CompileError: not on this machine, or not with these weights.
    """

    def __init__(self, head: Any, head_size: int) -> None:
        if not is_plain(head):
            raise CompileError("the output matrix is no plain linear layer on a CPU")
        self.dtype = head.weight.dtype
        self._kernels = load_kernels(self.dtype, head_size)
        self._matrix = NativeMatrix(self._kernels, [head])

    def best(self, hidden: Tensor) -> list[int]:
        """The output with the largest product for each row of (N, D); the first of several."""
        rows, depth = hidden.shape
        x = hidden.detach().to(self.dtype).contiguous()
        chosen = (c_int * rows)()
        self._kernels.best(
            _address(x), rows, depth, ctypes.byref(self._matrix.struct), self._matrix.width, chosen,
            torch.get_num_threads(),
        )  # fmt: skip
        return list(chosen)


def _address(tensor: Tensor) -> c_void_p:
    assert tensor.is_contiguous()
    return c_void_p(tensor.data_ptr())


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
