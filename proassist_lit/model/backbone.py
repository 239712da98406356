"""Backbones: any Hugging Face causal language model, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.errors import ConfigError
from proassist_lit.model.adapter_files import adapter_base, fold_adapter
from proassist_lit.model.assistant_folder import check_folder
from proassist_lit.model.config import ModelConfig, TinyConfig, TrainMode
from proassist_lit.model.lora import add_lora
from proassist_lit.model.new_rows import add_new_rows
from proassist_lit.model.pretrained import load_model, load_tokenizer
from proassist_lit.model.quoting import wire_quoting
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.model.vocabulary import add_special_tokens, fit_embeddings
from proassist_lit.model.weights_type import cast_weights
from proassist_lit.sequence.chat import chat_format


def build_tokenizer(config: ModelConfig, texts: Callable[[], Iterable[str]]) -> Any:
    """Tokenizer of the backbone, with the chat format's special tokens and the image token.

    Args:
        config: names the backbone and the chat format.
        texts: called for the texts to train on, if the backbone is made from scratch.

    Raises:
        ConfigError: the backbone is not found, is no language model, or has no tokenizer.
    """
    table = chat_format(config.chat)
    if config.is_from_scratch:
        return train_tokenizer(texts(), table, config.tiny.vocab_size)
    tokenizer = load_tokenizer(config.source)
    add_special_tokens(tokenizer, table)
    return tokenizer


def build_backbone(config: ModelConfig, tokenizer: Any) -> Any:
    """Causal language model of the configuration; of a vision-language model the text side only.

    Special tokens of the chat format that the backbone does not know get rows of its matrices.
    With ``model.train=lora`` it is frozen, and low-rank additions are in it; with ``frozen``, too,
    nothing but the rows of those tokens is trained.

    Args:
        config: names the backbone and the chat format.
        tokenizer: made by ``build_tokenizer`` of the same configuration.

    Raises:
        ConfigError: the backbone is not found, or is not one that can be streamed.
    """
    new_ids: list[int] = []
    if config.is_from_scratch:
        lm = _build_tiny(config.tiny, len(tokenizer))
        cast_weights(lm, getattr(torch, config.dtype))
    else:
        lm, new_ids = _load(config, tokenizer)
    if config.train.adapts:
        add_lora(lm, config.lora, new_ids)
    elif config.train is TrainMode.FROZEN and new_ids:
        add_new_rows(lm, new_ids, output=True)
    return lm


def _load(config: ModelConfig, tokenizer: Any) -> tuple[Any, list[int]]:
    """A backbone from files, and the rows of it that were never trained."""
    source, four_bit = config.source, config.train is TrainMode.QLORA
    base = None
    if config.init_from:
        check_folder(Path(config.init_from))
        base = adapter_base(config.init_from)
    dtype = getattr(torch, config.dtype)
    lm = load_model(base or source, dtype=dtype, four_bit=four_bit)
    known = load_tokenizer(base or source).get_vocab()
    new_ids = fit_embeddings(lm, tokenizer, chat_format(config.chat), known)
    if base is None:
        return lm, new_ids
    if four_bit:
        raise ConfigError(
            f"model.init_from={config.init_from} is an adapter, which cannot be added to weights "
            "of 4 bits; merge it first (proassist-lit import), or set model.train=lora."
        )
    fold_adapter(lm, Path(config.init_from))
    trained = load_tokenizer(source).get_vocab()
    return lm, [i for i in new_ids if tokenizer.convert_ids_to_tokens(i) not in trained]


def _build_tiny(config: TinyConfig, vocab_size: int) -> Any:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=131072,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            initializer_range=config.init_std,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            attention_bias=config.quoting,
        )
    )
    if config.quoting:
        wire_quoting(model)
    return model
