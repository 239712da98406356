"""Weights of a model out of the checkpoints that training writes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proassist_lit.errors import CheckpointError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.tensor_files import check_tensors

PREFIX = "model."
"""Stands before the names of the model's tensors: the training module holds it by this name."""


def saved_names(model: AssistantModel) -> set[str]:
    """Names of the tensors that a checkpoint of ``model`` holds.

    All of them; but of a backbone that is not trained whole and can be read again from where it
    came, only what is trained.
    """
    names = set(model.state_dict())
    if model.saves_backbone:
        return names
    parameters = model.named_parameters(remove_duplicate=False)  # tied ones by both names
    trained = {name for name, parameter in parameters if parameter.requires_grad}
    return {name for name in names if name in trained or not name.startswith("lm.")}


def load_weights(model: AssistantModel, path: Path) -> None:
    """Give ``model`` the weights of a checkpoint; on an error it keeps its own.

    Args:
        model: built by the configuration and the tokenizer of the run.
        path: a ``.ckpt`` file. It is read as tensors and plain data: nothing in it is executed.

    Raises:
        CheckpointError: the file cannot be read, or its tensors are not those of the model; the
            message lists all that are missing, left over, or of another shape.
    """
    state = read_checkpoint(path)
    own, names = model.state_dict(), saved_names(model)
    check_tensors(
        str(path), state, {name: own[name] for name in names},
        "Use the configuration and the tokenizer that it was trained with.",
    )  # fmt: skip
    model.load_state_dict(state, strict=False)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint.

    Args:
        path: a ``.ckpt`` file. It is read as tensors and plain data: nothing in it is executed.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with _reading(path) as saved:
        return {
            name.removeprefix(PREFIX): tensor
            for name, tensor in saved["state_dict"].items()
            if name.startswith(PREFIX)
        }


def read_step(path: Path) -> int:
    """After how many steps of training a checkpoint was written.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with _reading(path) as saved:
        return int(saved["global_step"])


def read_callback(path: Path, name: str) -> Mapping[str, Any]:
    """What a callback of that name left in a checkpoint; nothing if there was none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with _reading(path) as saved:
        state: Mapping[str, Any] = saved.get("callbacks", {}).get(name, {})
        return state


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, AttributeError, TypeError,
            EOFError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason}); give a "
            ".ckpt file that training wrote, or a run's directory."
        ) from error
