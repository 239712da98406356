"""From vision features to the backbone's embedding space."""

from __future__ import annotations

from torch import nn


class Projector(nn.Sequential):
    """Linear - GELU - Linear, as in ProAssist (``mm_projector.{0,2}``).

    Args:
        vision_size: E.
        hidden_size: D.

    Source: ProAssist, arXiv:2506.05904; LLaVA-1.5, arXiv:2310.03744.
    """

    def __init__(self, vision_size: int, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(vision_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.vision_size = vision_size
