"""Runs the backbone on a few new tokens with a cache; the inner loop of every stream.

Hugging Face's forward builds masks and walks through wrappers at every call, which for a small
model takes several times as long as the arithmetic. ``LlamaDecoder`` does the same arithmetic on
the same weights; anything that is not a plain Llama goes through Hugging Face.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.cache import KVCache


class Decoder(Protocol):
    """Feeds embeddings to a backbone."""

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        ...


class HuggingFaceDecoder:
    """Any causal language model, by its own forward."""

    def __init__(self, model: AssistantModel) -> None:
        self._model = model

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        return self._model.hidden_states(inputs_embeds[None], cache=cache)[0, -1]


LLAMAS = {
    "llama", "mistral", "qwen2", "qwen3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"
}  # fmt: skip
"""Model types that are a Llama, with biases or norms of queries and keys at most."""


class LlamaDecoder:
    """A Llama or one of its close relatives, operation by operation.

    The text sides of SmolVLM and of Qwen-VL are among them: with frames at plain positions the
    three rows of Qwen-VL's rotation are equal, and so an ordinary rotation.

    Args:
        model: its backbone must satisfy ``fits``. Weights are shared, not copied.

    Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245; Qwen2 adds
    biases, arXiv:2407.10671; Qwen3 norms of queries and keys, arXiv:2505.09388.
    """

    def __init__(self, model: AssistantModel) -> None:
        decoder = model.lm.get_decoder()
        self._layers = list(decoder.layers)
        self._norm = decoder.norm
        self._rotary = decoder.rotary_emb
        config = model.lm.config
        self._head_size = int(self._layers[0].self_attn.head_dim)
        self._gqa = config.num_key_value_heads != config.num_attention_heads
        self._qk_norm = self.norms_heads(model)
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

    @staticmethod
    def norms_heads(model: AssistantModel) -> bool:
        """Whether queries and keys have norms of their own."""
        return str(model.lm.config.model_type) in ("qwen3", "qwen3_vl_text")

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        past, new = len(cache), len(inputs_embeds)
        cos, sin = self._rotation(past, past + new, inputs_embeds)
        mask = None
        if new > 1 and past > 0:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=inputs_embeds.device)
            mask = mask.tril(past)
        x = inputs_embeds
        for index, layer in enumerate(self._layers):
            attention = layer.self_attn
            h = normalize(x, layer.input_layernorm)
            shape = (new, -1, self._head_size)
            query, key = attention.q_proj(h).view(shape), attention.k_proj(h).view(shape)
            if self._qk_norm:
                query, key = normalize(query, attention.q_norm), normalize(key, attention.k_norm)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
            value = attention.v_proj(h).view(shape)
            keys, values = cache.layers[index].update(
                key.transpose(0, 1)[None], value.transpose(0, 1)[None]
            )
            mixed = F.scaled_dot_product_attention(
                query.transpose(0, 1)[None], keys, values, attn_mask=mask,
                is_causal=new > 1 and past == 0, scale=attention.scaling, enable_gqa=self._gqa,
            )  # fmt: skip
            x = x + attention.o_proj(mixed[0].transpose(0, 1).reshape(new, -1))
            if index == len(self._layers) - 1:
                x = x[-1:]  # of the last layer only the last token is read
            h = normalize(x, layer.post_attention_layernorm)
            mlp = layer.mlp
            x = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
        return normalize(x, self._norm)[0]

    def _rotation(self, start: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(T, 1, size) cosines and sines of positions ``start`` .. ``end - 1``."""
        if end > len(self._cos) or self._cos.dtype != like.dtype:
            positions = torch.arange(max(2 * end, 1024), device=like.device)[None]
            cos, sin = self._rotary(like[None], positions)
            self._cos, self._sin = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        return self._cos[start:end], self._sin[start:end]


def make_decoder(model: AssistantModel) -> Decoder:
    """The fastest decoder that fits the backbone."""
    return LlamaDecoder(model) if LlamaDecoder.fits(model) else HuggingFaceDecoder(model)


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
