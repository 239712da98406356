"""Folders with a tiny backbone, its tokenizer, or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from proassist_lit.model.backbone import build_tokenizer
from proassist_lit.model.config import ModelConfig, TinyConfig

TEXTS = [
    "Now slice the carrot with the knife.",
    "S1->start;S12->complete",
    "You need 12 steps.",
] * 4
TINY = TinyConfig(vocab_size=320, hidden_size=32, num_layers=2, num_heads=2, mlp_size=48)


def folder_of(model: Any, folder: Path, chat: str = "compact") -> ModelConfig:
    """Save a model with a tokenizer that knows ``compact`` and ``<image>``; ask for ``chat``."""
    save_tokenizer(folder)
    model.save_pretrained(folder)
    return ModelConfig(backbone=str(folder), chat=chat)


def save_tokenizer(folder: Path) -> int:
    tokenizer = build_tokenizer(ModelConfig(tiny=TINY), lambda: TEXTS)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def plain_tokenizer(
    folder: Path, num_tokens: int, special: Sequence[str] = (), ordinary: Sequence[str] = ()
) -> None:
    """One token a letter, ``num_tokens`` of them; and added ones."""
    letters = [chr(i) for i in range(97, 123)] + list("<|>_ ./,;:'-+=()[]{}!?")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            BPE({letter: i for i, letter in enumerate(letters[:num_tokens])}, [])
        ),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(ordinary))
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)})
    tokenizer.save_pretrained(folder)
