"""A folder that holds a whole assistant: what of it a model begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.model.adapter_files import read_json
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.tensor_files import check_tensors, read_shapes, read_tensors

DESCRIPTION, HEADS = "proassist_lit.json", "heads.safetensors"
"""Files that make a folder of Hugging Face's layout an assistant."""


def head_tensors(model: AssistantModel) -> dict[str, Tensor]:
    """Everything beside the backbone: projector, heads, output matrix of updates."""
    return {
        name: tensor for name, tensor in model.state_dict().items() if not name.startswith("lm.")
    }


def write_heads(model: AssistantModel, folder: Path) -> None:
    """Write everything beside the backbone."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in head_tensors(model).items()}
    save_file(tensors, folder / HEADS, metadata={"format": "pt"})


def read_description(folder: Path) -> dict[str, Any]:
    """What ``proassist_lit.json`` says.

    Raises:
        CheckpointError: the folder has none, or it cannot be read.
    """
    if not (folder / DESCRIPTION).is_file():
        raise CheckpointError(
            f"{folder}: holds no {DESCRIPTION}, so it is no assistant; give a folder that "
            "proassist-lit export or import wrote."
        )
    return read_json(folder / DESCRIPTION)


def check_folder(folder: Path) -> None:
    """Refuse a folder whose tensors are not those that were written.

    Raises:
        CheckpointError: lists all that are missing, left over, or of another shape; or a file is
            cut short.
    """
    wanted = read_description(folder).get("tensors", {})
    got = read_shapes(folder)
    check_tensors(
        str(folder),
        {name: torch.empty(shape, device="meta") for name, shape in got.items()},
        {name: torch.empty(shape, device="meta") for name, shape in wanted.items()},
        "Files of the folder were changed or are gone: export or import it again.",
    )


def load_heads(model: AssistantModel, folder: Path, new: Sequence[str] = ()) -> None:
    """Give projector and heads the weights of a folder.

    Args:
        model: as the configuration describes it.
        folder: of an assistant.
        new: heads that stay as they are, whatever the folder has by their names.

    Raises:
        ConfigError: ``new`` names what is no head of the model.
        CheckpointError: the tensors are not those of the model; the message lists them.
    """
    heads = {name for name, _ in model.named_children()} - {"lm", "projector"}
    if unknown := sorted(set(new) - heads):
        raise ConfigError(
            f"model.init_new: the model has no {', '.join(unknown)}; it has "
            f"{', '.join(sorted(heads))}."
        )
    tensors, wanted = (
        {name: t for name, t in found.items() if name.partition(".")[0] not in new}
        for found in (read_tensors(folder / HEADS), head_tensors(model))
    )
    check_tensors(
        str(folder / HEADS), tensors, wanted,
        "Set the keys of model as in proassist_lit.json, or name heads that begin untrained in "
        "model.init_new.",
    )  # fmt: skip
    model.load_state_dict(tensors, strict=False)
