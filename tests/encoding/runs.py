"""Runs over videos, a watcher that remembers, and an encoder that gives what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.encoding.encode import Outcome, encode_videos
from proassist_lit.encoding.jobs import Job, Shard, find_jobs
from proassist_lit.encoding.manifest import Settings, claim_folder
from proassist_lit.errors import ProAssistError
from proassist_lit.vision.encoder import UNIT, FrameEncoder
from tests.vision.clips import number_of

GRIDS = ("cls", "2x2")
FPS = 4.0


class Nobody:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.num_frames = 0
        self.videos: list[tuple[str, int, bool]] = []

    def frames(self, job: Job, num_frames: int) -> None:
        self.num_frames += num_frames

    def video(self, job: Job, num_frames: int, error: ProAssistError | None) -> None:
        self.videos.append((job.video.name, num_frames, error is not None))


def run(
    videos: Path, out: Path, encoder: FrameEncoder, *, file_format: str = "safetensors",
    shard: Shard | None = None, watcher: Nobody | None = None, **options: Any,
) -> Outcome:  # fmt: skip
    settings = Settings.of(encoder, grids=GRIDS, fps=FPS, file_format=file_format)
    jobs = (shard or Shard()).of(find_jobs([videos], out, f".{file_format}"))
    claim_folder(out, settings)
    return encode_videos(jobs, encoder, settings, watcher or Nobody(), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class OddEncoder(FrameEncoder):
    """Gives what it is told to give; fails at pictures of some size."""

    name, revision, width, preprocessing = "odd", "1", 1, "none"

    def __init__(self, value: float) -> None:
        self.value = value

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        if frames.shape[1] == 16:
            raise ZeroDivisionError("too small")
        return torch.tensor([float(number_of(frame)) for frame in frames])

    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        assert len(prepared) == UNIT
        values = torch.where(prepared == 3, self.value, prepared)
        return {grid: values[:, None, None].half() for grid in grids}
