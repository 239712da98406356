"""The files of a checkpoint of ProAssist or of its DST extension, sorted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from proassist_lit.exchange.proassist_names import is_beside
from proassist_lit.model.adapter_files import (
    ADAPTER_CONFIG,
    BESIDE_ADDITIONS,
    read_adapter,
    read_json,
)
from proassist_lit.model.tensor_files import read_tensors

_EXTENSION = ("speaking_decision_head", "dst_update_head", "dst_generation_head")
_EXTENSION_KEYS = ("dst_gen_token_id", "use_binary_decision_heads", "use_dst_update_head")


@dataclass
class Checkpoint:
    """A checkpoint's folder, sorted.

    Attributes:
        folder: of the files.
        settings: of ``config.json``.
        backbone: tensors of the backbone: whole, or the matrices that grew.
        additions: those of the last adapter, and matrices that it was saved with.
        beside: those of projector and heads, by their names.
    """

    folder: Path
    settings: dict[str, Any]
    backbone: dict[str, Tensor]
    additions: dict[str, Tensor]
    beside: dict[str, Tensor]

    @property
    def is_adapter(self) -> bool:
        """Whether it holds what is added to a backbone, not the backbone itself."""
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def is_extension(self) -> bool:
        """Whether it is one of the DST extension."""
        heads = any(name.startswith(_EXTENSION) for name in self.beside)
        return heads or any(self.settings.get(key) is not None for key in _EXTENSION_KEYS)


def is_proassist(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint of ProAssist or its extension."""
    path = folder / "config.json"
    return path.is_file() and "vision_hidden_size" in read_json(path)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read all files of a checkpoint.

    Raises:
        CheckpointError: one cannot be read.
    """
    settings = read_json(folder / "config.json")
    found = Checkpoint(folder, settings, {}, {}, {})
    if found.is_adapter:
        tensors = read_adapter(folder)
    else:
        files = [*sorted(folder.glob("model*.safetensors"))]
        files = files or sorted(folder.glob("pytorch_model*.bin"))
        tensors = {name: t for path in files for name, t in read_tensors(path).items()}
    if (folder / "mm_projector.bin").is_file():
        tensors |= read_tensors(folder / "mm_projector.bin")
    for name, tensor in tensors.items():
        if is_beside(name):
            found.beside[name] = tensor
        elif ".lora_" in name or BESIDE_ADDITIONS in name:
            found.additions[name] = tensor
        else:
            found.backbone[name] = tensor
    return found
