"""Feeds the backbone a few new tokens of one stream; the inner loop of every session."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.compiled_llama import compile_llama
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.llama import Llama
from proassist_lit.streaming.native import native_or_none


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


class LlamaDecoder:
    """A backbone that satisfies ``Llama.fits``. Weights are shared, not copied."""

    def __init__(self, model: AssistantModel) -> None:
        self._llama = Llama(model)

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        llama, past, new = self._llama, len(cache), len(inputs_embeds)
        cos, sin = (table[past : past + new] for table in llama.angles(past + new, inputs_embeds))
        mask = None
        if new > 1 and past > 0:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=inputs_embeds.device)
            mask = mask.tril(past)

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = cache.layers[index].update(
                key.transpose(0, 1)[None], value.transpose(0, 1)[None]
            )
            mixed = F.scaled_dot_product_attention(
                query.transpose(0, 1)[None], keys, values, attn_mask=mask,
                is_causal=new > 1 and past == 0, scale=llama.scale, enable_gqa=llama.group > 1,
            )  # fmt: skip
            return mixed[0].transpose(0, 1).reshape(new, -1)

        return llama(inputs_embeds, (cos, sin), attend, last_only=True)[0]


class CompiledDecoder:
    """A backbone that satisfies ``Llama.fits``, by compiled kernels; as its weights are now.

    Raises:
        CompileError: not on this machine, or not with these weights.
    """

    def __init__(self, model: AssistantModel) -> None:
        self._compiled = compile_llama(model)

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        past, new = len(cache), len(inputs_embeds)
        keys, values = cache.extend(new, self._compiled.empty_keys())
        return self._compiled(inputs_embeds, [(0, past, new)], keys, values)[-1]


def make_decoder(model: AssistantModel, kernels: Kernels = Kernels.AUTO) -> Decoder:
    """The fastest decoder that fits the backbone.

    Raises:
        ConfigError: compiled kernels are asked for, and cannot be had.
    """
    if not Llama.fits(model):
        if kernels is Kernels.COMPILED:
            raise ConfigError(
                "stream.kernels=compiled: there are kernels for backbones like Llama's only, not "
                f"for {model.lm.config.model_type}; set stream.kernels=auto."
            )
        return HuggingFaceDecoder(model)
    return native_or_none(lambda: CompiledDecoder(model), kernels, model.dtype) or LlamaDecoder(
        model
    )
