"""All that a feature file holds: every grid as it is stored, and what the file says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from proassist_lit.data.arrow_features import dense, short
from proassist_lit.data.arrow_stream import open_arrow
from proassist_lit.data.feature_writing import NOTES_KEY, write_arrow, write_safetensors
from proassist_lit.data.features import damaged_file, missing_file
from proassist_lit.errors import FeatureError

FORMATS = ("safetensors", "arrow")
"""Ours and ProAssist's; the names are those of their files' suffixes."""

_COMMIT = 40
"""Digits of a hub's commit; a fingerprint has 32."""


@dataclass(frozen=True)
class HowMade:
    """How ``proassist-lit encode`` made features, as far as it makes them other features.

    Attributes:
        encoder: its name; weights in another folder are the same weights.
        revision: which weights.
        layer: layer that the grids were pooled from.
        preprocessing: how pictures were made the encoder's input.
    """

    encoder: str
    revision: str
    layer: int
    preprocessing: str

    @classmethod
    def said_in(cls, notes: Mapping[str, str]) -> HowMade | None:
        """What the notes of a file say; None if they do not say it in full."""
        try:
            made = json.loads(notes["made"])
            return cls(
                str(made["encoder"]), str(made["revision"]), int(made["layer"]),
                str(made["preprocessing"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None

    def differing(self, other: HowMade) -> str:
        """In what it differs from another, with both values; empty if features are alike."""
        differing = []
        if self._is_surely_another(other):
            mine, theirs = (f"{made.encoder} ({made.revision})" for made in (self, other))
            differing.append(f"encoder {mine}, there {theirs}")
        if self.layer != other.layer:
            differing.append(f"layer {self.layer}, there {other.layer}")
        if self.preprocessing != other.preprocessing:
            differing.append(f"preprocessing {self.preprocessing}, there {other.preprocessing}")
        return "; ".join(differing)

    def _is_surely_another(self, other: HowMade) -> bool:
        """Whether the weights are others.

        A hub's commit and the fingerprint of a folder tell nothing of each other, and one name has
        many commits.
        """
        commits = [made for made in (self, other) if len(made.revision) == _COMMIT]
        if len(commits) == 1:
            return False
        return self.encoder != other.encoder if commits else self.revision != other.revision


def read_content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a whole feature file.

    Args:
        path: ``X.safetensors`` or ``X.arrow``.

    Returns:
        (F, cells, E) for each grid, of the file's own type, and its notes.

    Raises:
        FeatureError: it is missing or damaged, or holds something else, too.
    """
    if not path.exists():
        raise missing_file(path)
    try:
        if path.suffix == ".arrow":
            return _read_arrow(path), read_notes(path)
        with safe_open(str(path), framework="pt") as file:
            grids = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (pa.ArrowException, SafetensorError, OSError) as error:
        raise damaged_file(path, short(error)) from error
    for name, cells in grids.items():
        if cells.ndim != 3 or not cells.is_floating_point():
            raise FeatureError(
                f"{path}: {name!r} is of shape {tuple(cells.shape)} and type {cells.dtype}, not "
                "(frames, cells, width) floats; name a feature file."
            )
    return grids, read_notes(path)


def other_format_of(path: Path) -> Path | None:
    """The file that holds the same video's features in the other format; None if there is none.

    Where both are, the Arrow file is read, however old it is.
    """
    others = (path.with_suffix(f".{kind}") for kind in FORMATS if path.suffix != f".{kind}")
    return next(filter(Path.exists, others), None)


def write_content(path: Path, grids: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a feature file, atomically, in the format that its suffix names."""
    (write_arrow if path.suffix == ".arrow" else write_safetensors)(path, grids, notes)


def read_notes(path: Path) -> dict[str, str]:
    """What a feature file says of itself; ProAssist's own say nothing.

    Raises:
        FeatureError: the file is missing or damaged.
    """
    if not path.exists():
        raise missing_file(path)
    try:
        if path.suffix == ".arrow":
            with open_arrow(path) as stream:
                return dict(json.loads(stream.metadata.get(NOTES_KEY, b"{}")))
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (pa.ArrowException, SafetensorError, OSError, ValueError) as error:
        raise damaged_file(path, short(error)) from error


def _read_arrow(path: Path) -> dict[str, Tensor]:
    with open_arrow(path) as stream:
        columns = stream.columns
        if stream.num_rows == 0 or not columns:
            raise pa.ArrowInvalid("it holds no frames")
        if len(set(columns)) < len(columns):
            raise pa.ArrowInvalid("two of its columns have one name")
        return {name: _joined(stream.column(name, 0, stream.num_rows), name) for name in columns}


def _joined(parts: Iterable[Any], name: str) -> Tensor:
    arrays = [dense(part, name) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise pa.ArrowInvalid(f"the frames of {name!r} are of different shapes")
    return torch.from_numpy(np.concatenate(arrays))
