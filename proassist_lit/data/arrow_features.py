"""ProAssist's feature files: one Arrow stream per video, read by window from a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.data.arrow_stream import ArrowStream, open_arrow
from proassist_lit.data.features import (
    FeatureFile,
    FeatureReader,
    check_shapes,
    check_window,
    damaged_file,
    lacking_grid,
    missing_file,
)


class ArrowFeatureFile:
    """Reader of one Arrow stream file. Opens it at each read, as ``FeatureFile`` does.

    A column is a grid, a row a frame: (cells, E) floating values, or (E,) for a single cell.

    Args:
        path: a file written by ``datasets.arrow_writer.ArrowWriter``.
        grids: names of the grids that make a frame's tokens, in order.

    Source: released features of ProAssist, arXiv:2506.05904.
    """

    def __init__(self, path: Path, grids: Sequence[str]) -> None:
        self.path, self.grids = path, tuple(grids)

    def shape(self, *, where: str = "") -> tuple[int, int, int]:
        """(F, K, E): frames, tokens per frame, feature size.

        Raises:
            FeatureError: the file is missing, damaged or empty, lacks a grid, has one of other
                cells, or grids of different widths.
        """
        num_frames, parts = self._read(0, 1, where)
        return num_frames, sum(part.shape[1] for part in parts), parts[0].shape[2]

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
        _, parts = self._read(start, end, where)
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def _read(self, start: int, end: int, where: str) -> tuple[int, list[NDArray[np.float32]]]:
        """How many frames there are, and (end - start, cells, E) float32 of each grid."""
        if not self.path.exists():
            raise missing_file(self.path, where=where)
        try:
            with open_arrow(self.path) as stream:
                if stream.num_rows == 0:
                    raise pa.ArrowInvalid("it holds no frames")
                for grid in self.grids:
                    if stream.columns.count(grid) != 1:
                        raise lacking_grid(self.path, grid, stream.columns, where=where)
                check_window(self.path, start, end, stream.num_rows, where=where)
                parts = [_floats(stream, grid, start, end) for grid in self.grids]
                num_frames = stream.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged_file(self.path, short(error), where=where) from error
        check_shapes(self.path, self.grids, [part.shape for part in parts], where=where)
        return num_frames, parts


def find_features(path: Path) -> Path:
    """The file of a video's features, by what lies on the disk.

    Where there are both, the Arrow file goes before the safetensors file: it may be the source's
    own. To use features of your own beside published ones, give their folder a name of its own
    (``data.encoder``).

    Args:
        path: the file, with suffix ``.arrow`` or ``.safetensors``; the other one is looked for,
            too. If there is neither, this one is what is missing.
    """
    arrow, ours = path.with_suffix(".arrow"), path.with_suffix(".safetensors")
    return arrow if arrow.exists() or (path.suffix == ".arrow" and not ours.exists()) else ours


def open_features(path: Path, grids: Sequence[str]) -> FeatureReader:
    """The reader for a video's features.

    Args:
        path: as of ``find_features``. If there is no file, reading says that this one is missing.
        grids: names of the grids that make a frame's tokens, in order.
    """
    found = find_features(path)
    return (ArrowFeatureFile if found.suffix == ".arrow" else FeatureFile)(found, grids)


def _floats(stream: ArrowStream, grid: str, start: int, end: int) -> NDArray[np.float32]:
    """(end - start, cells, E) float32."""
    parts = [dense(part, grid).astype(np.float32) for part in stream.column(grid, start, end)]
    if len({part.shape[1:] for part in parts}) > 1:
        raise pa.ArrowInvalid(f"the frames of {grid!r} are of different shapes")
    return np.concatenate(parts)


def dense(rows: Any, grid: str) -> NDArray[np.floating[Any]]:
    """(rows, cells, E) floats, as stored, of nested lists that all have the same lengths.

    They may lie in the memory map.

    Raises:
        pyarrow.ArrowException: the lengths differ, or they hold something else.
    """
    shape = [len(rows)]
    while _is_list(rows.type):
        lengths = pc.unique(pc.list_value_length(rows)).to_pylist()
        if rows.null_count or len(lengths) != 1 or not lengths[0]:
            raise pa.ArrowInvalid(f"the frames of {grid!r} are of different shapes, or empty")
        shape.append(lengths[0])
        rows = rows.flatten()  # of the slice only, without a copy
    if rows.null_count or not pa.types.is_floating(rows.type) or len(shape) not in (2, 3):
        raise pa.ArrowInvalid(
            f"{grid!r} holds {len(shape) - 1} levels of {rows.type}, not (cells, E) floats"
        )
    values = rows.to_numpy(zero_copy_only=True)
    return np.asarray(values.reshape(shape[0], -1, shape[-1]))


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def short(error: Exception) -> str:
    """The first line of what Arrow says; the rest are its own source files."""
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
