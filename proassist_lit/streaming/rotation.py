"""Moves keys that were rotated for one position to another one."""

from __future__ import annotations

import torch
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.llama import Llama


class KeyRotation:
    """Rotary positions of a backbone, as far as moving kept keys needs them.

    A key is turned back by the rotation of its old position and on by that of the new one, with
    the backbone's own cosines and sines (computed in float32, whatever the model's type), so that
    it equals the key that would have been computed at the new position.

    Args:
        model: its backbone must rotate keys in halves, as Llama does.

    Raises:
        ConfigError: the backbone has other positions.

    Source: RoFormer, arXiv:2104.09864.
    """

    def __init__(self, model: AssistantModel) -> None:
        if not Llama.fits(model):
            kind = getattr(model.lm.config, "model_type", type(model.lm).__name__)
            raise ConfigError(
                f"stream.strategy=drop_middle must move kept keys to new positions, which is known "
                f"of Llama-type backbones only, not of {kind}; choose another stream.strategy."
            )
        self._rotary = model.lm.get_decoder().rotary_emb

    def move(self, keys: Tensor, old: int, new: int) -> Tensor:
        """Move (..., T, size) keys from positions ``old``, ``old + 1``, .. to ``new``, .. ."""
        cos, sin = self._angles(keys, old)
        there = (keys * cos - _turn(keys) * sin) / (cos**2 + sin**2)
        cos, sin = self._angles(keys, new)
        return there * cos + _turn(there) * sin

    def _angles(self, keys: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """(T, size) cosines and sines from position ``start`` on."""
        positions = torch.arange(start, start + keys.shape[-2], device=keys.device)[None]
        cos, sin = self._rotary(keys, positions)
        return cos[0], sin[0]


def _turn(keys: Tensor) -> Tensor:
    first, second = keys.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
