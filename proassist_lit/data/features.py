"""Feature files: one per video, read by window without loading the video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from proassist_lit.atomic import replacing
from proassist_lit.errors import FeatureError


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
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in grids.items()}, str(temporary), metadata=metadata)


class FeatureFile:
    """Reader of one feature file. Opens it at each read: cheap, and safe across workers.

    Args:
        path: a file that ``write_features`` made.
        grids: names of the grids that make a frame's tokens, in order.
    """

    def __init__(self, path: Path, grids: Sequence[str]) -> None:
        self.path, self.grids = path, tuple(grids)

    def shape(self, *, where: str = "") -> tuple[int, int, int]:
        """(F, K, E): frames, tokens per frame, feature size."""
        with self._open(where) as file:
            shapes = [self._slice(file, grid).get_shape() for grid in self.grids]
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
            FeatureError: the file is missing, damaged, lacks a grid, or is too short.
        """
        parts = []
        with self._open(where) as file:
            for grid in self.grids:
                rows = self._slice(file, grid)
                num_frames = rows.get_shape()[0]
                if not 0 <= start < end <= num_frames:
                    raise FeatureError(
                        f"{where or self.path}: asks for frames {start}..{end - 1}, but "
                        f"{self.path} holds frames 0..{num_frames - 1}; correct start_frame_idx "
                        "and end_frame_idx of the record, or encode the whole video."
                    )
                parts.append(rows[start:end].float())
        return torch.cat(parts, dim=1)

    def _open(self, where: str = "") -> Any:
        asked = f"{where}: " if where else ""
        if not self.path.exists():
            raise FeatureError(
                f"{asked}feature file {self.path} does not exist; encode the video first, or "
                "correct frames_file of the record."
            )
        try:
            return safe_open(str(self.path), framework="pt")
        except SafetensorError as error:
            raise FeatureError(
                f"{asked}feature file {self.path} is damaged ({error}); delete it and encode the "
                "video again."
            ) from error

    def _slice(self, file: Any, grid: str) -> Any:
        if grid not in file.keys():  # noqa: SIM118 - safe_open is no mapping
            raise FeatureError(
                f"feature file {self.path} has no grid {grid!r}, only "
                f"{', '.join(sorted(file.keys()))}; encode the video with it, or choose another "
                "data.num_tokens_per_img."
            )
        return file.get_slice(grid)
