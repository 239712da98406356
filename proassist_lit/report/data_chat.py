"""The formatter by which the commands count and show tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import training_texts
from proassist_lit.errors import ConfigError
from proassist_lit.model.config import TinyConfig
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.model.vocabulary import add_special_tokens
from proassist_lit.sequence.chat import FORMATS, Chat, chat_format


def choose_chat(
    conversations: Iterable[Conversation], folder: Path | None, chat: str | None
) -> tuple[Chat, str]:
    """The formatter that is asked for, and how it counts tokens, in words.

    Args:
        conversations: the records; a tokenizer is trained on them if none is named.
        folder: that of a Hugging Face tokenizer (``--tokenizer``).
        chat: name of the chat format (``--chat``); None for that of the tokenizer.

    Raises:
        ConfigError: there is no such tokenizer or chat format, or the tokenizer tells no format.
    """
    if folder is None:
        table = chat_format(chat or "compact")
        tokenizer = train_tokenizer(training_texts(conversations), table, TinyConfig().vocab_size)
        origin = f"a byte-pair tokenizer of {len(tokenizer)} tokens trained on these records"
    else:
        tokenizer = _load_tokenizer(folder)
        known = tokenizer.get_vocab()
        fitting = [n for n, table in FORMATS.items() if known.keys() >= set(table.special_tokens)]
        if not (chat or fitting):
            raise ConfigError(
                f"--tokenizer {folder}: knows the special tokens of no chat format; "
                f"name the format by --chat, one of {', '.join(FORMATS)}."
            )
        table = chat_format(chat or fitting[0])
        add_special_tokens(tokenizer, table)
        origin = f"the tokenizer of {folder} ({len(tokenizer)} tokens)"
    return Chat(table, tokenizer), f"Tokens of {origin}, chat format {table.name}."


def _load_tokenizer(folder: Path) -> Any:
    remedy = "give a folder that save_pretrained wrote, such as tokenizer/ of a run"
    if not folder.is_dir():
        raise ConfigError(f"--tokenizer {folder}: is not a folder; {remedy}.")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of any type: tokenizers raises bare Exceptions
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"--tokenizer {folder}: holds no tokenizer ({reason}); {remedy}."
        ) from error
