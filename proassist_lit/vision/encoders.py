"""Frozen encoders by name: uint8 pictures in, one feature vector per grid cell out."""

from __future__ import annotations

from pathlib import Path

import torch

from proassist_lit.errors import ConfigError
from proassist_lit.vision.encoder import GRID_SIDES, GRIDS, FrameEncoder, grids_for
from proassist_lit.vision.network import NetworkOptions
from proassist_lit.vision.thumbnail import ThumbnailEncoder

__all__ = [
    "GRIDS",
    "GRID_SIDES",
    "FrameEncoder",
    "ThumbnailEncoder",
    "build_encoder",
    "choose_device",
    "grids_for",
    "load_encoder",
]


def build_encoder(name: str) -> FrameEncoder:
    """Build the encoder without weights called ``name``: ``thumbnail16``, ``thumbnail24``, ...

    Raises:
        ConfigError: no such encoder.
    """
    if size := _thumbnail_size(name):
        return ThumbnailEncoder(size)
    raise ConfigError(
        f"data.encoder is {name!r}; known are thumbnail2 .. thumbnail128 (say, thumbnail16)."
    )


def load_encoder(name: str, options: NetworkOptions | None = None) -> FrameEncoder:
    """Load any encoder.

    Args:
        name: ``thumbnail16``, ``efficientnet-lite0``, ``dinov2-small``, or a vision model of
            Hugging Face, as a folder or by its id on the hub.
        options: how a network is run; None: as it comes, on the CPU.

    Raises:
        ConfigError: no such encoder, or it cannot be run like that.
    """
    options = options or NetworkOptions()
    if size := _thumbnail_size(name):
        options.refuse_choice(name)
        return ThumbnailEncoder(size)
    if name == "efficientnet-lite0":
        from proassist_lit.vision.efficientnet import EfficientNetEncoder

        return EfficientNetEncoder(options)
    if name == "dinov2-small":
        from proassist_lit.vision.dinov2 import Dinov2WheelEncoder

        return Dinov2WheelEncoder(options)
    if is_of_hugging_face(name):
        from proassist_lit.vision.hugging_face import load_hugging_face

        return load_hugging_face(name, options)
    raise ConfigError(
        f"encoder {name!r}: known are thumbnail2 .. thumbnail128, efficientnet-lite0, "
        "dinov2-small, and vision models of Hugging Face by folder or hub id "
        "(google/siglip-so400m-patch14-384)."
    )


def is_of_hugging_face(name: str) -> bool:
    """Whether the encoder is a model of Hugging Face: a folder, or an id on the hub."""
    return "/" in name or (bool(name) and Path(name).is_dir())


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {name}: cannot be used ({str(error).splitlines()[0]}); choose cpu, or cuda "
            "on a machine with a GPU."
        ) from error
    return device


def _thumbnail_size(name: str) -> int:
    """Size of the thumbnail encoder called ``name``; 0 if there is none."""
    size = name.removeprefix("thumbnail")
    known = name.startswith("thumbnail") and size.isdigit() and 2 <= int(size) <= 128
    return int(size) if known else 0
