"""Writes an assistant as a folder of Hugging Face's layout, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from proassist_lit.atomic import whole_folder, write_text
from proassist_lit.errors import ConfigError
from proassist_lit.exchange.card import model_card
from proassist_lit.exchange.description import Description
from proassist_lit.model.adapter_files import write_adapter
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.assistant_folder import DESCRIPTION, write_heads
from proassist_lit.model.lora import has_lora, merged
from proassist_lit.model.tensor_files import read_shapes


def write_assistant(
    target: Path, model: AssistantModel, about: Description, *, merge: bool
) -> None:
    """Write backbone or adapter, heads, tokenizer, description and model card.

    Args:
        target: the folder; it must not exist.
        model: with its chat.
        about: what is known of it.
        merge: whether low-rank additions go into the weights; otherwise they are written as an
            adapter, and the folder needs the backbone that they were trained over.

    Raises:
        ConfigError: the folder exists, or the adapter's backbone could not be had again.
    """
    as_adapter = has_lora(model.lm) and not merge
    if as_adapter:
        _check_base(about)
    with new_folder(target) as folder:
        if as_adapter:
            write_adapter(model.lm, folder, about.config.model.backbone, {})
            model.lm.config.save_pretrained(folder)
        else:
            write_backbone(model.lm, folder)
        write_heads(model, folder)
        assert model.chat is not None
        model.chat.tokenizer.save_pretrained(folder)
        text = json.dumps(about.to_json(read_shapes(folder)), indent=1, ensure_ascii=False)
        write_text(folder / DESCRIPTION, text + "\n")
        write_text(folder / "README.md", model_card(about, as_adapter=as_adapter))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears whole.

    Raises:
        ConfigError: it exists, or cannot be made.
    """
    try:
        with whole_folder(target) as folder:
            yield folder
    except (OSError, SafetensorError) as error:  # a full disk is either, as the file is
        raise ConfigError(f"{target}: cannot be written ({error}); name a new folder.") from error


def write_backbone(lm: Any, folder: Path) -> None:
    """``save_pretrained``, low-rank additions in the weights."""
    tie = lm.config.tie_word_embeddings
    with merged(lm):
        table, head = lm.get_input_embeddings(), lm.get_output_embeddings()
        lm.config.tie_word_embeddings = head.weight is table.weight
        try:
            lm.save_pretrained(folder)
        finally:
            lm.config.tie_word_embeddings = tie


def _check_base(about: Description) -> None:
    model = about.config.model
    if model.is_from_scratch or model.init_from:
        base = model.init_from or model.backbone
        raise ConfigError(
            f"the adapter was trained over {base}, which cannot be had again from "
            "a hub; write it merged (--merge)."
        )
