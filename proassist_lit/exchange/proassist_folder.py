"""The files of a checkpoint of ProAssist or of its DST extension, sorted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from proassist_lit.errors import CheckpointError
from proassist_lit.exchange.proassist_names import PROJECTOR, is_beside
from proassist_lit.model.adapter_files import (
    ADAPTER_CONFIG,
    BESIDE_ADDITIONS,
    read_adapter,
    read_json,
)
from proassist_lit.model.tensor_files import read_tensors

_WIDTH = "vision_hidden_size"
_EXTENSION = ("speaking_decision_head", "dst_update_head", "dst_generation_head")
_EXTENSION_KEYS = ("dst_gen_token_id", "use_binary_decision_heads", "use_dst_update_head")


@dataclass
class Checkpoint:
    """A checkpoint's folder, sorted.

    Attributes:
        folder: of the files.
        settings: of ``config.json``; where it is missing, what the adapter says in its place.
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
    if _WIDTH in _settings(folder):
        return True
    path = folder / ADAPTER_CONFIG
    return path.is_file() and PROJECTOR in (read_json(path).get("modules_to_save") or ())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read all files of a checkpoint.

    Raises:
        CheckpointError: one cannot be read, or ``config.json`` is missing of what cannot do
            without.
    """
    found = Checkpoint(folder, _settings(folder), {}, {}, {})
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
    if _WIDTH not in found.settings:
        found.settings = _told_by_adapter(found) | found.settings
    return found


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def _told_by_adapter(found: Checkpoint) -> dict[str, Any]:
    """What an adapter of the extension says without ``config.json``, which is not saved with it.

    What else it may set is a limit (``max_seq_len``), or the same in all of its models.
    """
    if not found.is_adapter or not found.is_extension:
        raise CheckpointError(
            f"{found.folder}: config.json with {_WIDTH} is missing; only adapters of the DST "
            "extension, which have its heads, are read without. Fetch it with the checkpoint."
        )
    matrix = found.beside.get(f"{PROJECTOR}.0.weight")  # told of as missing, with all others
    deep = any(name.startswith(tuple(f"{head}.2." for head in _EXTENSION)) for name in found.beside)
    return {
        "llm_pretrained": read_json(found.folder / ADAPTER_CONFIG).get("base_model_name_or_path"),
        _WIDTH: 1 if matrix is None or matrix.ndim != 2 else matrix.shape[1],
        "binary_decision_head_type": "mlp" if deep else "linear",
    }
