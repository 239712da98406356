"""What the slots of an engine have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.slot_cache import SlotCache


@dataclass
class House:
    """What all slots of an engine share.

    Attributes:
        cache: keys and values of all of them.
        thresholds: of every row.
        rotation: moves keys, for strategies that need it.
        num_tokens_per_img: K.
        max_block: most frames that are watched ahead.
        margin: decisions nearer to their threshold are read again, the stream alone.
        reads_alone: whether a stream reads all its frames alone, from the first on: what rounding
            did to one of them would be in the decisions of those after it.
        step_rows: what a step costs beside its tokens (all weights are read), in tokens fed.
        num_answered: frames answered so far, of all rows.
    """

    cache: SlotCache
    thresholds: Sequence[Thresholds]
    rotation: KeyRotation | None
    num_tokens_per_img: int
    max_block: int
    margin: float
    step_rows: float
    reads_alone: bool = False
    num_answered: int = 0
