"""The binary decision heads."""

from __future__ import annotations

from torch import Tensor, nn

from proassist_lit.model.config import HeadType


class DecisionHead(nn.Module):
    """Reads one binary decision from a hidden state; its sigmoid is P(speak) or P(update).

    Args:
        hidden_size: D.
        head_type: ``linear`` (D -> 1) or ``mlp`` (D -> D/2 -> GELU -> 1).

    Source: ProAssist, arXiv:2506.05904. Its released head predicts P(silent); ours the opposite.
    """

    def __init__(self, hidden_size: int, head_type: HeadType) -> None:
        super().__init__()
        if head_type is HeadType.LINEAR:
            self.net: nn.Module = nn.Linear(hidden_size, 1)
        else:
            self.net = nn.Sequential(
                nn.Linear(hidden_size, hidden_size // 2), nn.GELU(), nn.Linear(hidden_size // 2, 1)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) hidden states to (...) raw scores."""
        out: Tensor = self.net(hidden).squeeze(-1)
        return out
