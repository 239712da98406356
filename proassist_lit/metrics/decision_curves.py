"""How a head's probabilities would decide at every threshold, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve

from proassist_lit.types import Transcript

MOST_POINTS = 200
"""Longer precision-recall curves are thinned to about so many points, first and last included."""


@dataclass(frozen=True)
class CalibrationBin:
    """Frames of like probability.

    Attributes:
        mean_prob: their mean probability.
        share_positive: share of them whose label is 1.
        num_frames: how many they are; bins without any are left out.
    """

    mean_prob: float
    share_positive: float
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class DecisionCurves:
    """Precision-recall and calibration of one head, over frames that are pos or neg.

    Attributes:
        thresholds: ascending; deciding yes at probabilities of at least the threshold.
        precisions: in [0, 1], one a threshold.
        recalls: in [0, 1], one a threshold; falling.
        bins: calibration, ascending in probability.
        num_frames: frames counted.
        num_positive: of them, those whose label is 1.
    """

    thresholds: tuple[float, ...]
    precisions: tuple[float, ...]
    recalls: tuple[float, ...]
    bins: tuple[CalibrationBin, ...]
    num_frames: int
    num_positive: int


def labelled_probs(transcripts: Sequence[Transcript], head: str) -> tuple[Tensor, Tensor]:
    """Probabilities of ``head`` at the frames that have a label.

    Args:
        transcripts: the streams as they were answered.
        head: ``speak`` or ``dst``.

    Returns:
        (N,) float64 in [0, 1], and (N,) int64 labels 0 or 1.
    """
    pairs = [
        (frame.speak_prob, reference.speak_label)
        if head == "speak"
        else (frame.dst_prob, reference.dst_label)
        for transcript in transcripts
        for frame, reference in zip(transcript.frames, transcript.references, strict=True)
    ]
    known = [(prob, label) for prob, label in pairs if prob is not None and label is not None]
    return (
        torch.tensor([prob for prob, _ in known], dtype=torch.float64),
        torch.tensor([label for _, label in known], dtype=torch.int64),
    )


def decision_curves(
    transcripts: Sequence[Transcript],
    head: str,
    *,
    num_bins: int = 15,
    exact_at: Sequence[float] = (),
) -> DecisionCurves | None:
    """Curves of ``head`` over all frames of ``transcripts`` together.

    Long curves are thinned: half of the points lie evenly in recall, where frames to speak at
    are rare and most of the ranking is not; the others are those that hold exactly at every
    hundredth: the smallest probability of at least 0.01, 0.02, ...

    Args:
        transcripts: the streams as they were answered.
        head: ``speak`` or ``dst``.
        num_bins: equal bins of the calibration curve.
        exact_at: more thresholds at which a thinned curve holds exactly, in [0, 1].

    Returns:
        None where no frame has a label, or only one of the labels occurs.
    """
    probs, labels = labelled_probs(transcripts, head)
    num_positive = int(labels.sum())
    if num_positive in (0, len(labels)):
        return None
    precisions, recalls, thresholds = binary_precision_recall_curve(probs, labels)
    # The point that torchmetrics adds at the end has no threshold.
    chosen = _chosen(thresholds.double(), recalls[:-1].double(), exact_at)
    bins = []
    places = (probs * num_bins).long().clamp(max=num_bins - 1)
    for place in range(num_bins):
        here = places == place
        if here.any():
            mean, share = float(probs[here].mean()), float(labels[here].double().mean())
            bins.append(CalibrationBin(mean, share, int(here.sum())))
    return DecisionCurves(
        thresholds=tuple(float(thresholds[i]) for i in chosen),
        precisions=tuple(float(precisions[i]) for i in chosen),
        recalls=tuple(float(recalls[i]) for i in chosen),
        bins=tuple(bins),
        num_frames=len(labels),
        num_positive=num_positive,
    )


def _chosen(thresholds: Tensor, recalls: Tensor, exact_at: Sequence[float]) -> list[int]:
    """Which points are kept, ascending; ``recalls`` falls as ``thresholds`` ascend."""
    last = len(thresholds) - 1
    if last < MOST_POINTS:
        return list(range(last + 1))
    half = MOST_POINTS // 2
    cuts = torch.tensor([*(k / half for k in range(half)), *exact_at], dtype=torch.float64)
    levels = torch.arange(1, half, dtype=torch.float64) / half
    places = torch.cat(
        [
            torch.searchsorted(thresholds, cuts),  # the smallest threshold of at least the cut
            last - torch.searchsorted(recalls.flip(0), levels),  # the largest with it
        ]
    )
    return sorted({0, last, *(int(place) for place in places if place <= last)})
