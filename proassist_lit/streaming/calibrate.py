"""Chooses thresholds from a teacher-forced pass over val; test is never looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from proassist_lit.streaming.teacher import TeacherForced

FALLBACK = 0.5
"""Threshold where val has no frame of one of the classes."""


MOST_YES = 2
"""Largest ratio of yes-decisions to yes-labels that a threshold may lead to."""


def choose_thresholds(passes: Sequence[TeacherForced]) -> tuple[float, float]:
    """Thresholds of both heads with the best F1 over single frames.

    Returns:
        (theta_speak, theta_dst), in [0, 1].
    """
    speak = best_threshold(
        torch.cat([p.speak_probs for p in passes]), torch.cat([p.speak_labels for p in passes])
    )
    with_dst = [p for p in passes if p.dst_probs is not None]
    if not with_dst:
        return speak, FALLBACK
    dst = best_threshold(
        torch.cat([p.dst_probs for p in with_dst if p.dst_probs is not None]),
        torch.cat([p.dst_labels for p in with_dst]),
    )
    return speak, dst


def best_threshold(probs: Tensor, labels: Tensor) -> float:
    """Threshold with the best F1; the middle of the plateau where many are as good.

    It never answers yes more than ``MOST_YES`` times as often as the labels do: a model that knows
    nothing has its best F1 where it always says yes.

    Args:
        probs: (F,) float in [0, 1].
        labels: (F,) 1 yes, 0 no, -1 left out.
    """
    probs, labels = probs[labels >= 0].double(), labels[labels >= 0]
    num_pos = int((labels == 1).sum())
    if num_pos == 0 or num_pos == len(labels):
        return FALLBACK
    order = probs.argsort(descending=True)
    sorted_probs, hits = probs[order], (labels[order] == 1).double().cumsum(0)
    fired = torch.arange(1, len(probs) + 1, dtype=torch.double)
    f1 = 2 * hits / (fired + num_pos)
    # A threshold lies between two different probabilities; it fires at all above it.
    nexts = torch.cat([sorted_probs[1:], sorted_probs.new_zeros(1)])
    distinct = sorted_probs > nexts
    if not distinct.any():  # every probability is 0
        return FALLBACK
    candidates = distinct & (fired <= MOST_YES * num_pos)
    if not candidates.any():  # too many frames share the highest probability
        return min(float(sorted_probs[0]) + 1e-6, 1.0)
    good = candidates & (f1 >= f1[candidates].max() - 1e-9)
    middles = (sorted_probs + nexts)[good] / 2
    return float(middles[len(middles) // 2])
