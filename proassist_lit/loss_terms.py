"""The terms of a loss by name, and as tensors in which processes and micro-batches add them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from proassist_lit.losses import BinaryLoss, SumCount
from proassist_lit.model.config import Decision


@dataclass(frozen=True)
class LossTerms:
    """What is learnt of a batch, each term as a sum and a count.

    Attributes:
        response: words of assistant spans; where silence is a token, what tells it is not silent.
        speak: the decision to speak.
        relevance: the second head to speak; None without one.
        dst_response: words of dst spans; None without a dst head.
        dst: the decision to update; None without a dst head.
    """

    response: SumCount
    speak: BinaryLoss
    relevance: BinaryLoss | None = None
    dst_response: SumCount | None = None
    dst: BinaryLoss | None = None

    @classmethod
    def of(cls, sums: Tensor, counts: Tensor, decision: Decision) -> Self:
        """The terms whose sums and counts stand in tensors, as ``sums`` and ``counts`` give them.

        Args:
            sums: (N,) float.
            counts: (N,) float.
            decision: of the model that they are of; with it N tells whether there is a dst head.
        """
        left = [SumCount(*pair) for pair in zip(sums, counts, strict=True)]

        def decide() -> BinaryLoss:
            return BinaryLoss(pos=left.pop(0), neg=left.pop(0))

        response, speak = left.pop(0), decide()
        relevance = decide() if decision is Decision.INFORMATIVE_RELEVANCE else None
        if not left:
            return cls(response, speak, relevance)
        return cls(response, speak, relevance, left.pop(0), decide())

    def pairs(self) -> list[SumCount]:
        """All of them, in the order of the fields, yes-decisions before no-decisions."""
        terms = (self.response, self.speak, self.relevance, self.dst_response, self.dst)
        return [
            pair
            for term in terms
            if term is not None
            for pair in ((term.pos, term.neg) if isinstance(term, BinaryLoss) else (term,))
        ]

    def sums(self) -> Tensor:
        """(N,) their sums."""
        return torch.stack([pair.sum for pair in self.pairs()])

    def counts(self) -> Tensor:
        """(N,) their counts."""
        return torch.stack([pair.count for pair in self.pairs()])
