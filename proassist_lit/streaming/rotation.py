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
    the backbone's own cosines and sines, so that it equals the key that would have been computed at
    the new position. In 16 bits that is but for a rounding: a key is moved in float32 and rounded
    once, as the same keys are moved again at every cut.

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
        exact = keys.to(torch.promote_types(keys.dtype, torch.float32))
        cos, sin = self._angles(keys, old)
        there = (exact * cos - _turn(exact) * sin) / (cos**2 + sin**2)
        cos, sin = self._angles(keys, new)
        return (there * cos + _turn(there) * sin).to(keys.dtype)

    def _angles(self, keys: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """(T, size) cosines and sines from position ``start`` on, at least float32.

        Those of 16-bit ``keys`` are as the backbone rounds them, since they were rotated by these.
        """
        positions = torch.arange(start, start + keys.shape[-2], device=keys.device)[None]
        cos, sin = self._rotary(keys, positions)
        wide = torch.promote_types(keys.dtype, torch.float32)
        return cos[0].to(wide), sin[0].to(wide)


def _turn(keys: Tensor) -> Tensor:
    first, second = keys.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
