"""Reads tensors from files without executing anything, and compares them with a model's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from proassist_lit.errors import CheckpointError

_SHOWN = 12
"""Tensors that a message names of each kind."""

_UNREADABLE = (
    OSError, RuntimeError, pickle.UnpicklingError, AttributeError, TypeError, EOFError, ValueError,
    KeyError, SafetensorError,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a ``.safetensors`` file, or of a pickle that holds nothing else.

    Raises:
        CheckpointError: the file cannot be read, is cut short, or holds something to execute.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(tensor, Tensor) for tensor in saved.values()):
            raise TypeError("it holds other things than tensors")
        return dict(saved)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes by name of the tensors in all ``.safetensors`` files of a folder.

    Raises:
        CheckpointError: a file cannot be read or is cut short.
    """
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    shapes[name] = list(file.get_slice(name).get_shape())
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
    return shapes


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{path}: cannot be read as tensors ({type(error).__name__}: {reason}); fetch or write the "
        "file again."
    )


def check_tensors(
    where: str, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], remedy: str
) -> None:
    """Refuse tensors that are not those of a model.

    Args:
        where: file or folder, for the message.
        got: tensors by name.
        wanted: tensors of the same names and shapes as the right ones.
        remedy: what to do.

    Raises:
        CheckpointError: lists all that are missing, left over, or of another shape.
    """
    misshapen = [
        f"{name}: {tuple(got[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in got and got[name].shape != tensor.shape
    ]
    faults = [
        _list("missing", sorted(name for name in wanted if name not in got)),
        _list("left over", sorted(name for name in got if name not in wanted)),
        _list("of another shape", sorted(misshapen)),
    ]
    if any(faults):
        raise CheckpointError(
            f"{where}: its tensors are not those of the model that the configuration describes; "
            f"{'; '.join(filter(None, faults))}. {remedy}"
        )


def _list(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}"
