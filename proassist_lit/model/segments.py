"""Packed rows: several conversations one behind the other, none of which sees another."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "segments"
"""What our attention is called among Hugging Face's (``config._attn_implementation``)."""

BY_SEGMENT = {
    "gemma", "gpt_neox", "granite", "llama", "mistral", "opt", "phi", "phi3", "qwen2",
    "qwen2_5_vl_text", "qwen2_vl_text", "qwen3", "qwen3_vl_text", "smollm3",
}  # fmt: skip
"""Model types that hand our attention what it needs; each is tested."""

BY_POSITION = {
    "cohere2", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama",
    "mistral", "olmo3", "phi", "phi3", "qwen2", "qwen3", "qwen3_vl_text", "smollm3", "stablelm",
}  # fmt: skip
"""Model types for which Hugging Face makes a mask of (T, T) where positions begin anew."""


@dataclass(frozen=True)
class Segments:
    """Where the conversations of a packed row stand.

    Attributes:
        lengths: tokens of each, in order; they fill the row.
        offsets: (number of conversations + 1,) int32, where each begins, and the end of the last.
        position_ids: (1, T) int64, counted from 0 in each.
    """

    lengths: tuple[int, ...]
    offsets: Tensor
    position_ids: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], segment_ids: Tensor) -> Segments:
        """From the lengths and the (1, T) numbers of the conversations; waits for no device."""
        lengths = tuple(lengths)
        assert sum(lengths) == segment_ids.shape[1], "the conversations fill the row"
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        offsets = offsets.to(segment_ids.device, torch.int32, non_blocking=True)
        places = torch.arange(segment_ids.shape[1], device=segment_ids.device)
        return cls(lengths, offsets, places - offsets[segment_ids])


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's SDPA attention, and for a packed row that of each conversation by itself.

    A mask of (T, T) would have every token look at all the others, only to forget most of them.

    Args:
        module: the attention layer.
        query: (B, heads, T, size); B is 1 for a packed row.
        key: (B, key-value heads, T, size).
        value: (B, key-value heads, T, size).
        attention_mask: for rows that are not packed.
        dropout: share of the weights that is dropped.
        scaling: of the products of queries and keys.
        segments: of a packed row.
        others: what Hugging Face's attention takes besides.

    Returns:
        (B, T, heads, size), and no weights.
    """
    if (segments is not None or attention_mask is None) and _lacks_groups(query, key):
        key, value = _repeated(key, query), _repeated(value, query)
        if segments is None:  # Hugging Face's might repeat them once more
            out = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=query.shape[2] > 1, scale=scaling
            )
            return out.transpose(1, 2).contiguous(), None
    if segments is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return out, None
    return _attend_uncompiled(query, key, value, segments, dropout, scaling), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """(1, T, heads, size) of (1, heads, T, size) queries and the keys and values to them."""
    kind = _kind(query)  # autocast knows SDPA, but not the kernel
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    grouped = query.shape[1] != key.shape[1]
    if _KERNEL is not None and _fits_kernel(query) and not dropout:
        longest = max(segments.lengths)
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        options: dict[str, Any] = {}
        if grouped and _takes_groups(_KERNEL):
            options["enable_gqa"] = True
        elif grouped:
            k, v = _repeated(k, q), _repeated(v, q)
        out: Tensor = _KERNEL(
            q, k, v, segments.offsets, segments.offsets, longest, longest,
            scale=scaling, window_size=(-1, 0), **options,
        )  # fmt: skip
        return out[None]
    parts = [
        F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for q, k, v in zip(*(_apart(x, segments) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _repeated(heads: Tensor, query: Tensor) -> Tensor:
    """Heads of keys or values, in dimension 1, as often as there are queries for each."""
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1)


def _apart(heads: Tensor, segments: Segments) -> tuple[Tensor, ...]:
    """(1, heads, T, size) by conversation."""
    return torch.split(heads, list(segments.lengths), dim=2)


def _find_kernel() -> Callable[..., Any] | None:
    """PyTorch's own attention over conversations of any length, if this PyTorch has it."""
    try:
        module = importlib.import_module("torch.nn.attention.varlen")
    except ImportError:
        return None
    found: Callable[..., Any] = module.varlen_attn
    is_enough = {"scale", "window_size"} <= set(inspect.signature(found).parameters)
    return found if is_enough else None


@cache
def _takes_groups(kernel: Callable[..., Any]) -> bool:
    """Whether fewer heads may have keys than queries; PyTorch 2.11 wants them repeated."""
    return "enable_gqa" in inspect.signature(kernel).parameters


def _fits_kernel(query: Tensor) -> bool:
    """Whether the kernel takes it: 16-bit numbers on a GPU, Ampere or later."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and _has_flash_attention()
    )


def _lacks_groups(query: Tensor, key: Tensor) -> bool:
    """Whether SDPA takes fewer heads of keys than of queries by its plainest way alone.

    On a GPU that way keeps scores of (T, T) for the gradient; the memory-efficient one, which is
    there for 32 bits and for GPUs before Ampere, wants as many of both.
    """
    if not query.is_cuda or query.shape[1] == key.shape[1]:
        return False
    return _kind(query) not in (torch.float16, torch.bfloat16) or not _has_flash_attention()


def _kind(heads: Tensor) -> torch.dtype:
    """What it is computed in, autocast looked at."""
    if torch.is_autocast_enabled(heads.device.type):
        return torch.get_autocast_dtype(heads.device.type)
    return heads.dtype


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash_attention() -> bool:
    """Whether the GPU is an Ampere or later."""
    return torch.cuda.get_device_capability() >= (8, 0)


def attend_by_segment(lm: Any) -> bool:
    """Let ``lm`` use ``segment_attention`` if it is one that can; say whether it does.

    A backbone with sliding windows, or one that was loaded with another attention than SDPA, keeps
    Hugging Face's, which tells conversations by positions that begin anew.
    """
    config = lm.get_decoder().config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        kinds.add("sliding_attention")
    if config.model_type not in BY_SEGMENT or kinds != {"full_attention"}:
        return False
    if config._attn_implementation == "sdpa":
        config._attn_implementation = NAME
    return bool(config._attn_implementation == NAME)


def can_pack(lm: Any) -> bool:
    """Whether the conversations of a packed row stay apart in ``lm``, one way or the other."""
    config = lm.get_decoder().config
    return config._attn_implementation == NAME or config.model_type in BY_POSITION


# Lengths change with every batch, and with them what would be compiled.
_attend_uncompiled: Callable[..., Tensor] = torch.compiler.disable(_attend)  # type: ignore[no-untyped-call]
_KERNEL = _find_kernel()
AttentionInterface.register(NAME, segment_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
