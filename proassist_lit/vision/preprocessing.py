"""From uint8 pictures to the input of a network: as ProAssist does it, or as Hugging Face does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(Protocol):
    """What both ways offer."""

    name: str
    """How it is called on the command line and in manifests."""

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Make (F, H, W, 3) uint8 RGB frames (F, 3, h, w) float32."""
        ...


class Stretch:
    """The whole picture, stretched: scaled to [0, 1], normalised, then resized.

    The resizing is bilinear, without antialiasing, and does not keep the aspect ratio.

    Args:
        size: height and width of the result, pixels.
        mean: of each colour, in [0, 1].
        std: likewise.

    Source: extraction of ProAssist's released features, arXiv:2506.05904.
    """

    name = "stretch"

    def __init__(self, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.size = size
        self._mean, self._std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Make (F, H, W, 3) uint8 RGB frames (F, 3, h, w) float32."""
        return torch.cat([self._one(frame) for frame in frames])

    def _one(self, frame: NDArray[np.uint8]) -> Tensor:
        """(1, 3, h, w) of one (H, W, 3) frame: large frames are not in memory all at once."""
        scaled = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1) / 255
        normalised = (scaled - self._mean) / self._std
        return F.interpolate(normalised[None], self.size, mode="bilinear", align_corners=False)


class Processor:
    """What the encoder's own image processor does: mostly a crop of the middle, antialiased.

    Args:
        processor: an image processor of Hugging Face, of the kind that uses Pillow.
    """

    name = "processor"

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Make (F, H, W, 3) uint8 RGB frames (F, 3, h, w) float32."""
        pixels: Tensor = self._processor(
            images=list(frames), return_tensors="pt", input_data_format="channels_last"
        )["pixel_values"]
        return pixels.float()
