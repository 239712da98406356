"""Backbones: any Hugging Face causal language model, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from proassist_lit.errors import ConfigError
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.quoting import wire_quoting
from proassist_lit.model.smollm2 import smollm2_folder
from proassist_lit.model.suitability import REMEDY, check_backbone, check_config
from proassist_lit.model.text_side import TextSide, take_text_side
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.model.vocabulary import add_special_tokens, fit_embeddings
from proassist_lit.sequence.chat import chat_format


def build_tokenizer(config: ModelConfig, texts: Callable[[], Iterable[str]]) -> Any:
    """Tokenizer of the backbone, with the chat format's special tokens and the image token.

    Args:
        config: names the backbone and the chat format.
        texts: called for the texts to train on, if the backbone is made from scratch.

    Raises:
        ConfigError: the backbone is not found, or has no tokenizer.
    """
    table = chat_format(config.chat)
    if config.backbone == "tiny":
        return train_tokenizer(texts(), table, config.tiny.vocab_size)
    tokenizer = _read(AutoTokenizer, config.backbone, "tokenizer")
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
    lm = _load(config.backbone)
    known = _read(AutoTokenizer, config.backbone, "tokenizer").get_vocab()
    fit_embeddings(lm, tokenizer, chat_format(config.chat), known)
    return lm


def _load(backbone: str) -> Any:
    """Read a backbone and see that it can be streamed."""
    config = _read(AutoConfig, backbone, "config.json")
    check_config(backbone, config)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        source: Any = AutoModelForImageTextToText
    elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        source = AutoModelForCausalLM
    elif config.architectures == [TextSide.__name__]:  # saved by this package
        source = TextSide
    else:
        raise ConfigError(
            f"model.backbone={backbone!r} ({config.model_type}) is not a language model; {REMEDY}."
        )
    model = _read(source, backbone, "weights", dtype=torch.float32, config=config)
    composed = model.config.get_text_config() is not model.config
    lm = take_text_side(model) if composed else model
    if source is not TextSide:
        check_backbone(backbone, model, lm)
    return lm


def _read(source: Any, backbone: str, what: str, **options: Any) -> Any:
    """Call ``source.from_pretrained``; an error says what is missing and what to give."""
    path = _locate(backbone)
    folder = Path(path).expanduser()
    if folder.is_dir():
        path = str(folder)
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"model.backbone={backbone!r} is a folder without config.json; give the folder "
                "that save_pretrained wrote, or a Hugging Face id."
            )
    elif folder.is_absolute() or backbone.startswith((".", "~")):
        raise ConfigError(f"model.backbone={backbone!r}: there is no such folder; {REMEDY}.")
    try:
        return source.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        hint = "" if folder.is_dir() else " It is no folder here, so it was sought on the hub."
        raise ConfigError(
            f"model.backbone={backbone!r}: its {what} cannot be read: {reason}{hint} Check the "
            f"name and the network, or {REMEDY}."
        ) from error


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


def _locate(backbone: str) -> str:
    """Folder or hub id of a backbone that is loaded, not made."""
    return str(smollm2_folder()) if backbone == "smollm2" else backbone
