"""Answers of finished streams on disk: a stopped evaluation goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from proassist_lit.atomic import write_text
from proassist_lit.data.conversation import Conversation
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.types import FrameOutput, StepState, Transition, Update

_PACKAGE = Path(__file__).parents[1]
_CODE = ("types.py", "data", "vision", "sequence", "model", "streaming")
"""Files and folders of the package by which streams are answered."""

_FIELDS = {field.name for field in fields(FrameOutput)}


class AnswerStore:
    """A folder with one file for every stream that was answered to its end.

    A file's name is a hash of everything the answers depend on (weights, settings, conversation,
    features, and the package's own code), so what was answered under other conditions is never
    found.

    Args:
        folder: made when the first answers are kept.
        model: its weights are hashed now.
        settings: whatever else the answers depend on; told apart by ``repr``.
    """

    def __init__(self, folder: Path, model: nn.Module, *settings: object) -> None:
        self._folder = folder
        digest = blake2b(repr(settings).encode())
        for path in _sources():
            digest.update(f"{path.relative_to(_PACKAGE)}".encode())
            digest.update(path.read_bytes())
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
        self._conditions = digest.digest()

    def key(
        self, conversation: Conversation, features: Tensor, thresholds: Thresholds | None = None
    ) -> str:
        """Name of the file of a stream answered with ``thresholds``."""
        digest = blake2b(self._conditions, digest_size=20)
        digest.update(repr((conversation, thresholds)).encode())
        digest.update(f"{features.dtype} {tuple(features.shape)}".encode())
        digest.update(_bytes(features))
        return digest.hexdigest()

    def read(self, key: str) -> list[FrameOutput] | None:
        """The answers kept under ``key``; None if there are none, or none that can be read."""
        path = self._folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            return [_read_frame(row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # damaged, or of another version: the stream is answered anew

    def write(self, key: str, frames: list[FrameOutput]) -> None:
        """Keep the answers of a stream, whole or not at all."""
        rows = ",\n".join(json.dumps(_frame(frame), ensure_ascii=False) for frame in frames)
        write_text(self._folder / f"{key}.json", f"[\n{rows}\n]\n")

    def clear(self, keys: Iterable[str]) -> None:
        """Forget the answers kept under ``keys``, and the folder if it keeps no others."""
        for key in keys:
            (self._folder / f"{key}.json").unlink(missing_ok=True)
        with suppress(OSError):  # other evaluations keep theirs here, or nothing was ever kept
            self._folder.rmdir()


def _sources() -> list[Path]:
    """Files with the code that answers streams, in order."""
    places = [_PACKAGE / name for name in _CODE]
    return sorted(
        path
        for place in places
        for path in (place.rglob("*") if place.is_dir() else [place])
        if path.suffix in (".py", ".c") and path.is_file()
    )


def _bytes(tensor: Tensor) -> memoryview:
    """Of a copy: storage that NumPy once saw cannot be freed by those who shard weights."""
    flat = tensor.detach().cpu().flatten().clone().view(torch.uint8)
    out: memoryview = flat.numpy().data
    return out


def _frame(frame: FrameOutput) -> dict[str, Any]:
    updates = [[update.id, update.transition.value] for update in frame.updates]
    state = {step: state.value for step, state in frame.state.items()}
    return vars(frame) | {"updates": updates, "state": state}


def _read_frame(row: Mapping[str, Any]) -> FrameOutput:
    if row.keys() != _FIELDS:
        raise ValueError(f"has the fields {', '.join(row)}")
    updates = tuple(Update(step, Transition(how)) for step, how in row["updates"])
    state = {step: StepState(state) for step, state in row["state"].items()}
    return FrameOutput(**{**row, "updates": updates, "state": state})
