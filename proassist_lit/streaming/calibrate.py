"""Chooses thresholds by single frames of a teacher-forced pass; test is never looked at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from proassist_lit.streaming.policy import NEVER

FALLBACK = 0.5
"""Threshold where val has no frame of one of the classes."""

MOST_YES = 2
"""Largest ratio of yes-decisions to yes-labels that a threshold may lead to."""

MOST = math.nextafter(1.0, 0.0)
"""Largest threshold of a probability. Of 32 bits, it says yes to 1 alone, as a threshold of 1 does;
but 1 lets the reference decide by its next token instead (``compat.reference_config``)."""


def threshold_candidates(probs: Tensor, labels: Tensor, num: int) -> list[float]:
    """Thresholds worth streaming with: the best one over single frames, and others around it.

    The others fire between half as often and twice as often as the best one.

    Args:
        probs: (F,) float in [0, 1], or what another rule of streaming makes of them; ``NEVER``
            where the answer is no whatever the threshold.
        labels: (F,) 1 yes, 0 no, -1 left out.
        num: most candidates; >= 1.

    Returns:
        The best one first, then the others, ascending; fewer than ``num`` where two coincide.
    """
    best = best_threshold(probs, labels)
    sorted_probs = probs[(labels >= 0) & (probs != NEVER)].double().sort(descending=True).values
    num_fired = int((sorted_probs >= best).sum())
    others: set[float] = set()
    for i in range(num - 1):
        away = (i // 2 + 1) / (num // 2)  # in (0, 1], nearest first
        count = round(num_fired * 2.0 ** (away if i % 2 else -away))
        theta = _threshold_that_fires(sorted_probs, count)
        if theta is not None and int((sorted_probs >= theta).sum()) != num_fired:
            others.add(theta)
    return [best, *sorted(others)]


def _threshold_that_fires(sorted_probs: Tensor, count: int) -> float | None:
    """A threshold that ``count`` of the falling probabilities reach, or as near as ties allow."""
    if not 0 < count < len(sorted_probs):
        return None
    lowest = sorted_probs[count - 1]
    below = sorted_probs[sorted_probs < lowest]
    return float((lowest + below[0]) / 2) if len(below) else None


def best_threshold(probs: Tensor, labels: Tensor) -> float:
    """Threshold with the best F1; the middle of the plateau where many are as good.

    It never answers yes more than ``MOST_YES`` times as often as the labels do: a model that knows
    nothing has its best F1 where it always says yes. Only frames whose probability is 1, which no
    threshold is above, may be more.

    Args:
        probs: (F,) as above.
        labels: (F,) 1 yes, 0 no, -1 left out.
    """
    num_pos = int((labels == 1).sum())  # those that no threshold finds among them
    kept = (labels >= 0) & (probs != NEVER)
    probs, labels = probs[kept].double(), labels[kept]
    if not 0 < int((labels == 1).sum()) < len(labels):
        return FALLBACK
    order = probs.argsort(descending=True)
    sorted_probs, hits = probs[order], (labels[order] == 1).double().cumsum(0)
    fired = torch.arange(1, len(probs) + 1, dtype=torch.double)
    f1 = 2 * hits / (fired + num_pos)
    # A threshold lies between two different probabilities; it fires at all above it.
    lowest = sorted_probs[-1:]  # below 0 is what is no probability
    nexts = torch.cat([sorted_probs[1:], torch.where(lowest < 0, lowest - 1, 0)])
    distinct = sorted_probs > nexts
    if not distinct.any():  # every probability is 0
        return FALLBACK
    candidates = distinct & (fired <= MOST_YES * num_pos)
    if not candidates.any():  # too many frames share the highest probability
        highest = float(sorted_probs[0])
        return min(highest + 1e-6, MOST) if highest <= 1.0 else highest + 1e-6
    good = candidates & (f1 >= f1[candidates].max() - 1e-9)
    middles = (sorted_probs + nexts)[good] / 2
    return float(middles[len(middles) // 2])
