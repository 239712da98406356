"""Weights in 16 or 64 bits, with batches left as they are."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
from torch.nn import Module

from proassist_lit.model.weights_type import cast_weights


class HalfWeights(HalfPrecision):
    """Lightning's ``bf16-true`` and ``16-true`` without their change of the batch and of buffers.

    The model itself brings features to the type of its weights; targets stay as exact as they are.
    Lightning would look into the batch, and refuses a dataclass that is frozen.
    """

    def convert_module(self, module: Module) -> Module:
        """The same module, its weights in 16 bits; frequencies of positions stay exact."""
        cast_weights(module, self._desired_input_dtype)
        return module

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data


class DoubleWeights(DoublePrecision):
    """Lightning's ``64-true`` without its change of the batch, as above."""

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data
