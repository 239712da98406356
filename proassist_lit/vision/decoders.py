"""Decoders of videos by name: a file in, its frames at a steady rate out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from proassist_lit.vision.torchcodec_video import decode_by_torchcodec, load_torchcodec
from proassist_lit.vision.video import decode_video

DECODERS = ("pyav", "torchcodec")
"""Names of the decoders; the first one needs nothing else, and is the default."""


class Decode(Protocol):
    """Decodes a video at so many frames per second, as ``decode_video`` says."""

    def __call__(self, path: Path, fps: float, *, threads: int = 1) -> Iterator[NDArray[np.uint8]]:
        """Yield (H, W, 3) uint8 RGB frames to the end of the video."""
        ...


def choose_decoder(name: str, device: torch.device) -> Decode:
    """The decoder called ``name``.

    Args:
        name: one of ``DECODERS``.
        device: where TorchCodec shall decode.

    Raises:
        ConfigError: it is not installed.
    """
    if name == "torchcodec":
        load_torchcodec()  # now, not in a thread
        return partial(decode_by_torchcodec, device=str(device))
    assert name in DECODERS
    return decode_video
