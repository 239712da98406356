"""Thumbnails: an encoder without weights, for drawn frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.vision.encoder import GRID_SIDES, FrameEncoder


class ThumbnailEncoder(FrameEncoder):
    """Weight-free encoder: a small picture of the frame, or of each of its parts.

    Each cell is averaged down to ``size`` x ``size`` RGB and scaled to about [-2, 2]; the cell's
    pixels, row-major, are its feature vector. Enough for drawn frames; not for real video.

    Args:
        size: height and width of a thumbnail, pixels.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.name = f"thumbnail{size}"
        self.width = size * size * 3
        self.revision, self.preprocessing = "1", "average"

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        """Leave (F, H, W, 3) uint8 RGB frames as they are."""
        return torch.from_numpy(frames)

    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        """Encode (F, H, W, 3) uint8; return (F, cells, E) float16 for each grid."""
        cells = self.encode(prepared.numpy(), grids)
        return {grid: torch.from_numpy(values) for grid, values in cells.items()}

    def encode(
        self, frames: NDArray[np.uint8], grids: Sequence[str]
    ) -> dict[str, NDArray[np.float16]]:
        """Encode (F, H, W, 3) uint8 RGB frames; return (F, cells, E) float16 for each grid."""
        scaled = frames.astype(np.float32) / 64.0 - 2.0
        return {grid: self._encode_grid(scaled, GRID_SIDES[grid]) for grid in grids}

    def _encode_grid(self, frames: NDArray[np.float32], side: int) -> NDArray[np.float16]:
        num_frames, height, width, _ = frames.shape
        rows = np.linspace(0, height, side + 1).round().astype(int)
        cols = np.linspace(0, width, side + 1).round().astype(int)
        cells = [
            _shrink(frames[:, top:bottom, left:right], self.size).reshape(num_frames, -1)
            for top, bottom in itertools.pairwise(rows)
            for left, right in itertools.pairwise(cols)
        ]
        return np.stack(cells, axis=1).astype(np.float16)


def _shrink(frames: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Average (F, H, W, 3) pictures to (F, size, size, 3); exact for whole factors.

    Elsewhere each target pixel averages the source pixels it touches.
    """
    for axis in (1, 2):
        edges = np.linspace(0, frames.shape[axis], size + 1)
        starts = np.floor(edges[:-1]).astype(int)
        ends = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
        if (np.diff(starts) == ends[0] - starts[0]).all() and ends[-1] == frames.shape[axis]:
            shape = list(frames.shape)
            shape[axis : axis + 1] = [size, frames.shape[axis] // size]
            frames = frames.reshape(shape).mean(axis=axis + 1)
        else:
            parts = [
                frames.take(range(start, end), axis=axis).mean(axis=axis)
                for start, end in zip(starts, ends, strict=True)
            ]
            frames = np.stack(parts, axis=axis)
    return frames
