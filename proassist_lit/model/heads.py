"""What reads the binary decisions: heads, or tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from proassist_lit.model.config import HeadType

ROWS = 256
"""Decisions whose vocabulary logits are alive at a time, where a token decides."""


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
        """Map (..., D) hidden states to (...) raw scores, of the type of the head's weights."""
        hidden = hidden.to(next(self.parameters()).dtype)  # the backbone's may be another
        out: Tensor = self.net(hidden).squeeze(-1)
        return out


class InformativeRelevance(nn.Module):
    """Reads whether to speak from two heads; its sigmoid is the mean of their probabilities.

    Args:
        hidden_size: D.
        head_type: of both heads.

    Attributes:
        informative: is there something new to say?
        relevance: has the frame to do with the task?

    Source: MMDuet, arXiv:2411.17991. It has two classes and no bias a head, and adds the
    probabilities (of both heads, or of one, as the task asks); half of the sum, which is ours,
    decides alike at half of the threshold and stays a probability.
    """

    def __init__(self, hidden_size: int, head_type: HeadType) -> None:
        super().__init__()
        self.informative = DecisionHead(hidden_size, head_type)
        self.relevance = DecisionHead(hidden_size, head_type)

    def scores(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., D) hidden states to (...) raw scores of either head, for their losses."""
        return self.informative(hidden), self.relevance(hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) hidden states to (...) log-odds, float32 or better."""
        scores = torch.stack(self.scores(hidden))
        scores = scores if scores.dtype == torch.float64 else scores.float()
        yes, no = F.logsigmoid(scores), F.logsigmoid(-scores)
        return yes.logsumexp(0) - no.logsumexp(0)


class TokenDecision(nn.Module):
    """Reads a decision from the probability p of one token; has no parameters of its own.

    Args:
        vocabulary_logits: (..., D) hidden states to (..., V) logits.
        token_id: the token.
        means_yes: the decision is yes with probability p; otherwise with 1 - p.

    Source: ProAssist, arXiv:2506.05904, without a head: the silent token; its DST extension: the
    tokens that open a span.
    """

    def __init__(
        self, vocabulary_logits: Callable[[Tensor], Tensor], token_id: int, *, means_yes: bool
    ) -> None:
        super().__init__()
        self._vocabulary_logits = vocabulary_logits
        self._token_id, self._sign = token_id, 1.0 if means_yes else -1.0

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) hidden states to (...) log-odds, float32 or better."""
        if hidden.ndim != 2 or len(hidden) <= ROWS:
            return self._log_odds(hidden)
        return torch.cat([
            checkpoint(self._log_odds, rows, use_reentrant=False)
            for rows in torch.split(hidden, ROWS)
        ])  # fmt: skip

    def _log_odds(self, hidden: Tensor) -> Tensor:
        logits = self._vocabulary_logits(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        chosen = logits[..., self._token_id]
        others = logits.index_fill(
            -1, torch.tensor([self._token_id], device=logits.device), -torch.inf
        )
        return self._sign * (chosen - others.logsumexp(-1))
