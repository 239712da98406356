"""Feature files: one per video, read by window without loading the video."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from proassist_lit.data.feature_writing import write_safetensors
from proassist_lit.data.git_lfs import is_pointer, pointer_fault
from proassist_lit.errors import FeatureError
from proassist_lit.vision.encoder import GRID_SIDES


def write_features(
    path: Path, grids: Mapping[str, Tensor], *, fps: float, encoder: str, rendered: bool
) -> None:
    """Write the features of one video, atomically.

    Args:
        path: ``<video>.safetensors``; its folder is made if need be.
        grids: (F, cells, E) floating tensor for each grid name (``cls``, ``2x2``, ...); frame i of
            the video is row i.
        fps: frames per second.
        encoder: name of the encoder that made them.
        rendered: whether the frames were drawn from annotations.
    """
    metadata = {"fps": str(fps), "encoder": encoder, "rendered": json.dumps(rendered)}
    write_safetensors(path, grids, metadata)


class FeatureReader(Protocol):
    """What every reader of a feature file offers, whatever the format."""

    path: Path
    """The file."""

    grids: tuple[str, ...]
    """Names of the grids that make a frame's tokens, in order."""

    def shape(self, *, where: str = "") -> tuple[int, int, int]:
        """(F, K, E): frames, tokens per frame, feature size."""
        ...

    def read(self, start: int, end: int, *, where: str = "") -> Tensor:
        """Read frames ``start`` .. ``end - 1`` as (end - start, K, E) float32."""
        ...


class FeatureFile:
    """Reader of one safetensors file. Opens it at each read: cheap, and safe across workers.

    Args:
        path: a file that ``write_features`` made.
        grids: names of the grids that make a frame's tokens, in order.
    """

    def __init__(self, path: Path, grids: Sequence[str]) -> None:
        self.path, self.grids = path, tuple(grids)

    def shape(self, *, where: str = "") -> tuple[int, int, int]:
        """(F, K, E): frames, tokens per frame, feature size.

        Raises:
            FeatureError: the file is missing, damaged, lacks a grid, has one of other cells, or
                grids of different widths.
        """
        with self._open(where) as file:
            shapes = [rows.get_shape() for rows in self._slices(file, where)]
        num_frames = min(shape[0] for shape in shapes)
        return num_frames, sum(shape[1] for shape in shapes), shapes[0][2]

    def read(self, start: int, end: int, *, where: str = "") -> Tensor:
        """Read frames ``start`` .. ``end - 1``.

        Args:
            start: first frame, absolute in the video.
            end: one past the last frame.
            where: record that asks, for the message.

        Returns:
            (end - start, K, E) float32.

        Raises:
            FeatureError: the file is missing, damaged, lacks a grid, has one of other cells or
                grids of different widths, or is too short.
        """
        parts = []
        with self._open(where) as file:
            for rows in self._slices(file, where):
                check_window(self.path, start, end, rows.get_shape()[0], where=where)
                parts.append(rows[start:end].float())
        return torch.cat(parts, dim=1)

    def _open(self, where: str = "") -> Any:
        if not self.path.exists():
            raise missing_file(self.path, where=where)
        try:
            return safe_open(str(self.path), framework="pt")
        except SafetensorError as error:
            raise damaged_file(self.path, error, where=where) from error

    def _slices(self, file: Any, where: str) -> list[Any]:
        for grid in self.grids:
            if grid not in file.keys():  # noqa: SIM118 - safe_open is no mapping
                raise lacking_grid(self.path, grid, file.keys(), where=where)
        slices = [file.get_slice(grid) for grid in self.grids]
        shapes = [rows.get_shape() for rows in slices]
        check_shapes(self.path, self.grids, shapes, where=where)
        return slices


def missing_file(path: Path, *, where: str = "") -> FeatureError:
    """The error for a file that is not there; ``where`` is the record that asks."""
    return FeatureError(
        f"{_asked(where)}feature file {path} does not exist; encode the video first, or correct "
        "frames_file of the record."
    )


def damaged_file(path: Path, reason: object, *, where: str = "") -> FeatureError:
    """The error for a file that cannot be read, or not to its end."""
    if is_pointer(path):
        return FeatureError(f"{_asked(where)}feature file {pointer_fault(path)}.")
    return FeatureError(
        f"{_asked(where)}feature file {path} is damaged ({reason}); delete it and encode the "
        "video again."
    )


def lacking_grid(path: Path, grid: str, present: Iterable[str], *, where: str = "") -> FeatureError:
    """The error for a file without ``grid``; ``present`` are those it has."""
    names = [name if name.isprintable() else ascii(name) for name in sorted(present)]
    return FeatureError(
        f"{_asked(where)}feature file {path} has no grid {grid!r}, only "
        f"{', '.join(names) or 'none'}; encode the video with it, or choose another "
        "data.num_tokens_per_img."
    )


def check_window(path: Path, start: int, end: int, num_frames: int, *, where: str = "") -> None:
    """Refuse a window that is empty, or not wholly among the frames of the file.

    Raises:
        FeatureError: naming the record, the frames and the file.
    """
    if not 0 <= start < end <= num_frames:
        raise FeatureError(
            f"{where or path}: asks for frames {start}..{end - 1}, but {path} holds frames 0.."
            f"{num_frames - 1}; correct start_frame_idx and end_frame_idx of the record, or encode "
            "the whole video."
        )


def check_shapes(
    path: Path, grids: Sequence[str], shapes: Sequence[Sequence[int]], *, where: str = ""
) -> None:
    """Refuse a grid that has other cells than its name says, and grids of different widths.

    Args:
        path: the file.
        grids: names of those that are read together, of those that encoders make.
        shapes: that of each in the file; should be (F, cells, E).
        where: record that asks, for the message.

    Raises:
        FeatureError: naming the record, the file and the grid.
    """
    for grid, shape in zip(grids, shapes, strict=True):
        wanted = GRID_SIDES[grid] ** 2
        if len(shape) != 3 or shape[1] != wanted:
            raise FeatureError(
                f"{_asked(where)}feature file {path}: grid {grid!r} is {tuple(shape)}, expected "
                f"(frames, {wanted}, width); encode the video again, or name the grid by its cells."
            )
    if len({shape[2] for shape in shapes}) > 1:
        widths = ", ".join(f"{grid} {s[2]}" for grid, s in zip(grids, shapes, strict=True))
        raise FeatureError(
            f"{_asked(where)}feature file {path}: the grids are of different widths: {widths}; "
            "encode the video again, all grids by one encoder."
        )


def _asked(where: str) -> str:
    return f"{where}: " if where else ""
