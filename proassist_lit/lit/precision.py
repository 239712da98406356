"""Sixteen-bit weights, with batches left as they are."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision


class HalfWeights(HalfPrecision):
    """Lightning's ``bf16-true`` and ``16-true`` without their change of the batch.

    The model itself brings features to the type of its weights; targets stay as exact as they are.
    Lightning would look into the batch, and refuses a dataclass that is frozen.
    """

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data
