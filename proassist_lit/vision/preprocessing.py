"""From uint8 pictures to the input of a network: stretched, the middle, or as it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(Protocol):
    """What all ways offer."""

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


class Crop(Stretch):
    """The middle of the picture: resized (bicubic, antialiased) to cover the result, then cut.

    So ProAssist makes the pictures of its released features, 384 x 384. It also stores them as
    JPEG in between, which is left out here, and takes pictures of Assembly101 turned.

    Source: extraction of ProAssist's released frames, arXiv:2506.05904.
    """

    name = "crop"

    def _one(self, frame: NDArray[np.uint8]) -> Tensor:
        height, width = self.size
        scale = max(height / frame.shape[0], width / frame.shape[1])
        covers = (
            max(round(frame.shape[1] * scale), width),
            max(round(frame.shape[0] * scale), height),
        )
        left, top = (covers[0] - width) // 2, (covers[1] - height) // 2
        picture = Image.fromarray(frame).resize(covers, Image.Resampling.BICUBIC)
        return super()._one(np.array(picture.crop((left, top, left + width, top + height))))


FITTED: dict[str, type[Stretch]] = {Stretch.name: Stretch, Crop.name: Crop}
"""Ways that need no image processor, by their names."""


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
