"""Losses as (sum, count), so that they can be added over micro-batches and ranks, then divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.types import IGNORE_INDEX


@dataclass(frozen=True)
class SumCount:
    """A loss before it is averaged."""

    sum: Tensor  # () float32, nats
    count: Tensor  # () float32, number of terms

    def mean(self) -> Tensor:
        """() float32; an exact 0 that still has a gradient path where there are no terms."""
        return self.sum / self.count.clamp(min=1)

    def __add__(self, other: Self) -> SumCount:
        return SumCount(self.sum + other.sum, self.count + other.count)


@dataclass(frozen=True)
class BinaryLoss:
    """Binary cross-entropy of a decision head, by class."""

    pos: SumCount
    neg: SumCount

    def balanced(self, pos_weight: float = 1.0) -> Tensor:
        """() float32: mean over pos and mean over neg, averaged.

        A stream of 200 silent frames and one spoken frame is then not won by silence. A class
        without a frame drops out; with neither, the loss is 0 with a gradient path.

        Source: ProAssist, arXiv:2506.05904, with its NaN on missing classes mended.
        """
        weight_pos = pos_weight * (self.pos.count > 0).float()
        weight_neg = (self.neg.count > 0).float()
        total = weight_pos * self.pos.mean() + weight_neg * self.neg.mean()
        return total / (weight_pos + weight_neg).clamp(min=torch.finfo(torch.float32).tiny)

    def plain(self, pos_weight: float = 1.0) -> Tensor:
        """() float32: mean over all decisions, pos ones weighted by ``pos_weight``.

        Without a decision the loss is 0 with a gradient path.
        """
        total = pos_weight * self.pos.sum + self.neg.sum
        count = pos_weight * self.pos.count + self.neg.count  # below 1 where weights are
        return total / count.where(count > 0, 1.0)


def binary_loss(
    logits: Tensor,
    pos_frame_mask: Tensor,
    neg_frame_mask: Tensor,
    *,
    targets: Tensor | None = None,
    focal_gamma: float = 0.0,
) -> BinaryLoss:
    """Binary cross-entropy with logits at decision tokens.

    Args:
        logits: (B, T) float, raw scores; their ``sigmoid`` is P(speak) or P(update).
        pos_frame_mask: (B, T) bool, frames whose answer is yes.
        neg_frame_mask: (B, T) bool, frames whose answer is no; disjoint from pos.
        targets: (B, T) float in [0, 1], probabilities to learn at the frames of the masks (see
            ``sampling.smooth_targets``); None for 1 at pos and 0 at neg.
        focal_gamma: exponent of the focal factor ``|target - p|**gamma``; 0 for none.

    Returns:
        (sum, count) of each class, nats and frames.

    Raises:
        ValueError: the three shapes differ.

    Source: focal factor of Lin et al., arXiv:1708.02002; for soft targets Li et al.,
    arXiv:2006.04388.
    """
    targets = pos_frame_mask.float() if targets is None else targets
    shapes = [tuple(x.shape) for x in (logits, pos_frame_mask, neg_frame_mask, targets)]
    if len(set(shapes)) != 1:
        raise ValueError(
            "binary_loss: logits, pos_frame_mask, neg_frame_mask and targets must share one "
            f"(B, T) shape, got {', '.join(map(str, shapes))}."
        )
    logits = logits if logits.dtype == torch.float64 else logits.float()
    targets = targets.to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if focal_gamma:
        # clamp: at exactly 0 a power below 1 has no finite gradient.
        miss = (targets - torch.sigmoid(logits)).abs().clamp(min=torch.finfo(logits.dtype).tiny)
        loss = loss * miss**focal_gamma

    def one_class(mask: Tensor) -> SumCount:
        # where, not multiplication: an infinite loss outside the mask must not become NaN.
        return SumCount(loss.where(mask, loss.new_zeros(())).sum(), mask.sum().to(loss.dtype))

    return BinaryLoss(one_class(pos_frame_mask), one_class(neg_frame_mask))


LOGIT_CHUNK = 256
"""Labelled positions whose vocabulary logits are alive at a time. So many rows keep the products
of a CPU busy, and 256 rows of a vocabulary of 128 000 take 131 MB in float32."""


def lm_loss(
    model: AssistantModel,
    hidden: Tensor,
    labels: Tensor,
    *,
    dst: bool = False,
    logit_chunk: int = LOGIT_CHUNK,
) -> SumCount:
    """Cross-entropy of the next token at labelled positions only.

    The logits of one chunk are alive at a time: they are made again when their gradient is needed.

    Args:
        model: applies its vocabulary matrix to the N positions that have a label.
        hidden: (B, T, D).
        labels: (B, T) int64 aligned with the input ids, -100 for no loss; shifted here, once.
        dst: use the dst output head, if the model has one.
        logit_chunk: positions of a chunk, >= 1.

    Returns:
        (sum, count), nats and tokens.
    """
    is_wanted = F.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1))  # (B, T), where the next has a label
    places = is_wanted.flatten().nonzero().squeeze(1)  # (N,), for which a GPU is waited for

    def total(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = model.lm_logits(rows, dst=dst)  # (chunk, V)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(logits, wanted, reduction="sum")

    rows, wanted = hidden.flatten(0, 1)[places], labels.flatten()[places + 1]  # (N, D), (N,)
    chunks = list(zip(*(torch.split(x, logit_chunk) for x in (rows, wanted)), strict=True))
    if len(chunks) == 1:
        summed = total(rows, wanted)
    else:
        summed = torch.stack([
            checkpoint(total, *chunk, use_reentrant=False) for chunk in chunks
        ]).sum()  # fmt: skip
    return SumCount(summed, is_wanted.sum().to(summed.dtype))
