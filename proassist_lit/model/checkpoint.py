"""Weights of a model out of the checkpoints that training writes."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from proassist_lit.errors import CheckpointError
from proassist_lit.model.assistant import AssistantModel

PREFIX = "model."
"""Stands before the names of the model's tensors: the training module holds it by this name."""

_SHOWN = 12
"""Tensors that a message names of each kind."""


def load_weights(model: AssistantModel, path: Path) -> None:
    """Give ``model`` the weights of a checkpoint; on an error it keeps its own.

    Args:
        model: built by the configuration and the tokenizer of the run.
        path: a ``.ckpt`` file. It is read as tensors and plain data: nothing in it is executed.

    Raises:
        CheckpointError: the file cannot be read, or its tensors are not those of the model; the
            message lists all that are missing, left over, or of another shape.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in saved["state_dict"].items()
            if name.startswith(PREFIX)
        }
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, AttributeError, TypeError,
            EOFError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason}); give a "
            ".ckpt file that training wrote, or a run's directory."
        ) from error
    own = model.state_dict()
    misshapen = [
        f"{name}: {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = [
        _list("missing", [name for name in own if name not in state]),
        _list("left over", [name for name in state if name not in own]),
        _list("of another shape", misshapen),
    ]
    if any(faults):
        raise CheckpointError(
            f"{path}: its tensors are not those of the model that the configuration describes; "
            f"{'; '.join(filter(None, faults))}. Use the configuration and the tokenizer that it "
            "was trained with."
        )
    model.load_state_dict(state)


def _list(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}"
