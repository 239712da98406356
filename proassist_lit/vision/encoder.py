"""What every frozen encoder offers: its grids, and uint8 pictures made into feature vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from proassist_lit.errors import ConfigError

GRIDS: dict[int, tuple[str, ...]] = {
    1: ("cls",),
    5: ("cls", "2x2"),
    10: ("cls", "3x3"),
    26: ("cls", "5x5"),
}
"""Feature grids of each number of tokens per frame, in the order they are concatenated."""

GRID_SIDES = {"cls": 1, "2x2": 2, "3x3": 3, "5x5": 5}
"""Cells along each side of a grid."""

UNIT = 8
"""Frames that go through an encoder at once, never more and never fewer: the last ones of a video
are filled up. A product rounds differently with another number of rows; like this a feature is the
same whoever asks for it, and with how many others. Eight frames of some hundred patches keep an
accelerator busy."""


def grids_for(num_tokens_per_img: int) -> tuple[str, ...]:
    """Names of the grids whose cells make ``num_tokens_per_img`` tokens.

    Raises:
        ConfigError: no such number of tokens per frame.
    """
    if num_tokens_per_img not in GRIDS:
        raise ConfigError(
            f"data.num_tokens_per_img is {num_tokens_per_img}; choose one of "
            f"{', '.join(map(str, GRIDS))} (cls, cls + 2x2, cls + 3x3, cls + 5x5)."
        )
    return GRIDS[num_tokens_per_img]


class FrameEncoder(ABC):
    """A frozen encoder.

    ``prepare`` may be called in any thread; ``encode_prepared`` in one at a time.
    """

    name: str
    """Names the folder of its features."""

    revision: str
    """Which weights: a commit, or a fingerprint of them."""

    width: int
    """E, size of one feature vector."""

    preprocessing: str
    """How a picture becomes the encoder's input."""

    layer: int = -1
    """Layer that the grids are pooled from; -1 is the last one, with its normalisation."""

    device: torch.device = torch.device("cpu")
    """Where it computes."""

    dtype: torch.dtype = torch.float32
    """How it computes; features are float16 all the same."""

    @abstractmethod
    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        """Make (F, H, W, 3) uint8 RGB frames its input: (F, ...) on the CPU."""

    @abstractmethod
    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        """Encode what ``prepare`` made; return (F, cells, E) float16 for each grid."""

    def encode(
        self, frames: NDArray[np.uint8], grids: Sequence[str]
    ) -> dict[str, NDArray[np.float16]]:
        """Encode (F, H, W, 3) uint8 RGB frames; return (F, cells, E) float16 for each grid."""
        units = [
            self.encode_prepared(filled_up(self.prepare(frames[i : i + UNIT])), grids)
            for i in range(0, len(frames), UNIT)
        ]
        joined = {grid: torch.cat([unit[grid] for unit in units]) for grid in grids}
        return {grid: cells[: len(frames)].cpu().numpy() for grid, cells in joined.items()}


def filled_up(prepared: Tensor) -> Tensor:
    """(UNIT, ...): the rows of ``prepared``, the last one repeated."""
    missing = UNIT - len(prepared)
    return torch.cat([prepared, prepared[-1:].expand(missing, *prepared.shape[1:])])


def pool(cls: Tensor | None, patches: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
    """Pool a map of patches to grids, as ProAssist does.

    Args:
        cls: (F, E) the encoder's summary of a picture; None without one: the mean of its patches.
        patches: (F, E, h, w).
        grids: names of the grids.

    Returns:
        (F, cells, E) float16 for each grid, cells row-major.
    """
    patches = patches.float()
    cls = patches.mean(dim=(2, 3)) if cls is None else cls
    return {
        grid: cls[:, None].half()
        if grid == "cls"
        else F.adaptive_avg_pool2d(patches, GRID_SIDES[grid]).flatten(2).transpose(1, 2).half()
        for grid in grids
    }
