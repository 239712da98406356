"""Backbones: any Hugging Face causal language model, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.pretrained import load_model, load_tokenizer
from proassist_lit.model.quoting import wire_quoting
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.model.vocabulary import add_special_tokens, fit_embeddings
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
    if config.backbone == "tiny":
        return train_tokenizer(texts(), table, config.tiny.vocab_size)
    tokenizer = load_tokenizer(config.backbone)
    add_special_tokens(tokenizer, table)
    return tokenizer


def build_backbone(config: ModelConfig, tokenizer: Any) -> Any:
    """Causal language model of the configuration; of a vision-language model the text side only.

    Special tokens of the chat format that the backbone does not know get rows of its matrices.

    Args:
        config: names the backbone and the chat format.
        tokenizer: made by ``build_tokenizer`` of the same configuration.

    Raises:
        ConfigError: the backbone is not found, or is not one that can be streamed.
    """
    if config.backbone == "tiny":
        return _build_tiny(config.tiny, len(tokenizer))
    lm = load_model(config.backbone)
    known = load_tokenizer(config.backbone).get_vocab()
    fit_embeddings(lm, tokenizer, chat_format(config.chat), known)
    return lm


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
