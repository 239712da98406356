"""A Llama or one of its close relatives, operation by operation.

Hugging Face's forward builds masks and walks through wrappers at every call, which for a small
model takes several times as long as the arithmetic. This is the same arithmetic on the same
weights; how the tokens see each other is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.products import MergedProducts, PlainProducts, Products

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Of a layer's number and (N, heads, size) queries, keys and values: (N, heads * size) mixed."""

LLAMAS = {
    "llama", "mistral", "qwen2", "qwen3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"
}  # fmt: skip
"""Model types that are a Llama, with biases or norms of queries and keys at most."""


class Llama:
    """The layers of such a backbone.

    The text sides of SmolVLM and of Qwen-VL are among them: with frames at plain positions the
    three rows of Qwen-VL's rotation are equal, and so an ordinary rotation.

    Args:
        model: its backbone must satisfy ``fits``.
        merged: for many rows at a time: on a CPU, work with merged copies of the weights; otherwise
            they are shared, not copied.

    Attributes:
        head_size: features of a head.
        kv_heads: heads of keys and values.
        group: query heads that share one of them.
        scale: of the products of queries and keys.
        is_merged: whether the weights were merged.

    Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245; Qwen2 adds
    biases, arXiv:2407.10671; Qwen3 norms of queries and keys, arXiv:2505.09388.
    """

    def __init__(self, model: AssistantModel, *, merged: bool = False) -> None:
        decoder, config = model.lm.get_decoder(), model.lm.config
        self._layers, self._norm = list(decoder.layers), decoder.norm
        self._rotary = decoder.rotary_emb
        first = self._layers[0].self_attn
        self.head_size, self.scale = int(first.head_dim), float(first.scaling)
        self.kv_heads = int(config.num_key_value_heads)
        self.group = int(config.num_attention_heads) // self.kv_heads
        self._norms_heads = str(config.model_type) in ("qwen3", "qwen3_vl_text")
        self.is_merged = merged and all(MergedProducts.fits(layer) for layer in self._layers)
        self._products: list[Products] = [
            MergedProducts(layer) if self.is_merged else PlainProducts(layer)
            for layer in self._layers
        ]
        self._cos = self._sin = torch.empty(0)

    @staticmethod
    def fits(model: AssistantModel) -> bool:
        """Whether the backbone is one of them, seeing all that came before, rotated alike.

        Sliding windows, rotations of a part of a head and rotations that depend on the length are
        left to Hugging Face.
        """
        config = model.lm.config
        if getattr(config, "model_type", "") not in LLAMAS or config.hidden_act != "silu":
            return False
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if config.model_type == "mistral" and config.sliding_window is not None:
            kinds.add("sliding_attention")
        return (
            kinds == {"full_attention"}
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
            and rope.get("partial_rotary_factor", 1.0) == 1.0
        )

    def __call__(
        self, x: Tensor, angles: tuple[Tensor, Tensor], attend: Attend, *, last_only: bool = False
    ) -> Tensor:
        """Run tokens through all layers.

        Args:
            x: (N, D) embeddings.
            angles: (N, 1, size) cosines and sines of their positions.
            attend: keeps the keys and values, and mixes the values that a token sees.
            last_only: whether only the last token is read in the end.

        Returns:
            (N, D) hidden states after the final norm, or (1, D) of the last.
        """
        cos, sin = angles
        shape = (len(x), -1, self.head_size)
        for index, (layer, products) in enumerate(zip(self._layers, self._products, strict=True)):
            h = normalize(x, layer.input_layernorm)
            query, key, value = (part.view(shape) for part in products.qkv(h))
            if self._norms_heads:
                query = normalize(query, layer.self_attn.q_norm)
                key = normalize(key, layer.self_attn.k_norm)
            mixed = attend(index, rotate(query, cos, sin), rotate(key, cos, sin), value)
            x = products.out(mixed, x)
            if last_only and index == len(self._layers) - 1:
                x = x[-1:]  # of the last layer only the last token is read
            x = products.feed_forward(normalize(x, layer.post_attention_layernorm), x)
        return normalize(x, self._norm)

    def angles(self, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(T, 1, size) cosines and sines of positions 0 .. ``end - 1`` at least, kept."""
        if end > len(self._cos) or self._cos.dtype != like.dtype:
            positions = torch.arange(max(2 * end, 1024), device=like.device)[None]
            cos, sin = self._rotary(like[None], positions)
            self._cos, self._sin = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        return self._cos, self._sin


def normalize(x: Tensor, norm: Any) -> Tensor:
    """The layer's own norm; fused in float32, where that is the same arithmetic.

    Hugging Face's norm rounds through float32 in every type, so other types go through it.
    """
    if x.dtype is not torch.float32:
        out: Tensor = norm(x)
        return out
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (T, heads, size) by position; the halves of a head make the pairs."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin
