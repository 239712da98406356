"""Reads a backbone and its tokenizer from a folder or from the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from proassist_lit.errors import ConfigError
from proassist_lit.model.four_bits import forget_quantization, keep_packed, quantization
from proassist_lit.model.smollm2 import smollm2_folder
from proassist_lit.model.suitability import REMEDY, check_backbone, check_config
from proassist_lit.model.text_side import TextSide, take_text_side


def load_tokenizer(backbone: str) -> Any:
    """Tokenizer of a backbone, as it was saved.

    Args:
        backbone: ``smollm2``, a Hugging Face id, or a folder that ``save_pretrained`` wrote.

    Raises:
        ConfigError: the backbone is not found, is no language model, or has no tokenizer.
    """
    _load_config(backbone)  # first: to call an encoder an encoder is of more use than its tokenizer
    return _read(AutoTokenizer, backbone, "tokenizer")


def _own_gpu() -> int:
    """The GPU of this process, before a Trainer has told it to use that."""
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return int(rank) % torch.cuda.device_count()


def load_model(backbone: str, *, dtype: torch.dtype = torch.float32, four_bit: bool = False) -> Any:
    """Causal language model, or the text side of a vision-language model.

    Args:
        backbone: ``smollm2``, a Hugging Face id, or a folder that ``save_pretrained`` wrote.
        dtype: of its weights, whatever the files have.
        four_bit: keep its linear layers in 4 bits and the rest in bfloat16, on the GPU if there
            is one.

    Raises:
        ConfigError: the backbone is not found, lacks weights, or cannot be streamed.
    """
    config = _load_config(backbone)
    options: dict[str, Any] = {"dtype": dtype}
    if four_bit:
        device = {"": _own_gpu()} if torch.cuda.is_available() else None
        options = {
            "dtype": torch.bfloat16, "quantization_config": quantization(), "device_map": device
        }  # fmt: skip
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
    model, report = _read(
        source, backbone, "weights", config=config, output_loading_info=True, **options
    )
    if four_bit:
        keep_packed(model)
    composed = model.config.get_text_config() is not model.config
    lm = take_text_side(model) if composed else model
    used = {id(weight) for weight in lm.parameters()}
    missing = {n for n, weight in model.named_parameters() if id(weight) in used}
    missing &= set(report["missing_keys"])
    if missing:
        names = ", ".join(sorted(missing))
        raise ConfigError(
            f"model.backbone={backbone!r}: its files lack the weights {names}, which would be "
            "random; save the model again, with all of its weights."
        )
    if source is not TextSide:
        check_backbone(backbone, model, lm)
    if four_bit:
        forget_quantization(model)
    # Rows are padded by length here; the token of that name may be one that is to be learnt.
    lm.get_input_embeddings().padding_idx = None
    return lm


def _load_config(backbone: str) -> Any:
    config = _read(AutoConfig, backbone, "config.json")
    check_config(backbone, config)
    return config


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
        mend = (
            "the folder must hold what save_pretrained wrote of model and tokenizer."
            if folder.is_dir()
            else f"it is no folder here, so it was sought on the hub: check the name and the "
            f"network, or {REMEDY}."
        )
        raise ConfigError(
            f"model.backbone={backbone!r}: its {what} cannot be read ({reason}); {mend}"
        ) from error


def _locate(backbone: str) -> str:
    """Folder or hub id of a backbone that is loaded, not made."""
    return str(smollm2_folder()) if backbone == "smollm2" else backbone
