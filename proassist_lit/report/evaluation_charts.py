"""The charts of an evaluation: precision and recall, calibration, and the thresholds tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proassist_lit.evaluation.result import EvaluationResult, SweepPoint
from proassist_lit.metrics.decision_curves import DecisionCurves, decision_curves
from proassist_lit.metrics.speaking import HEADS
from proassist_lit.report.dashboard import Chart

SWEPT = {
    "theta_speak": ("utterance_f1", "utterance_precision", "utterance_recall", "speak_f1"),
    "theta_dst": ("dst_update_f1", "dst_joint_goal_accuracy"),
}
"""What is drawn over each threshold."""


def evaluation_charts(result: EvaluationResult) -> dict[str, Chart]:
    """Every chart that ``result`` has something for, by name: ``test/calibration``."""
    charts: dict[str, Chart] = {}
    for split, streams in result.transcripts.items():
        found = {head: decision_curves(streams, head) for head in HEADS}
        heads = {head: curves for head, curves in found.items() if curves is not None}
        if heads:
            charts[f"{split}/precision_recall"] = precision_recall(split, heads)
            charts[f"{split}/calibration"] = calibration(split, heads)
    for split, points in result.sweep.items():
        for theta in SWEPT:
            chart = sweep_chart(split, theta, points)
            if chart.lines:
                charts[f"{split}/sweep_{theta}"] = chart
    return charts


def precision_recall(split: str, heads: Mapping[str, DecisionCurves]) -> Chart:
    """Precision over recall of every head, from the highest threshold to the lowest."""
    return Chart(
        title=f"{split}: precision and recall of the decisions",
        x_name="recall",
        y_name="precision",
        lines={
            head: tuple(zip(curves.recalls, curves.precisions, strict=True))[::-1]
            for head, curves in heads.items()
        },
    )


def calibration(split: str, heads: Mapping[str, DecisionCurves]) -> Chart:
    """How often a frame is positive over how probable it was said to be."""
    return Chart(
        title=f"{split}: calibration of the probabilities",
        x_name="mean probability",
        y_name="share of positive frames",
        lines={
            head: tuple((b.mean_prob, b.share_positive) for b in curves.bins)
            for head, curves in heads.items()
        },
        diagonal=True,
    )


def sweep_chart(split: str, theta: str, points: Sequence[SweepPoint]) -> Chart:
    """Metrics over one threshold; of several values of the other one the best counts.

    Args:
        split: which was streamed.
        theta: ``theta_speak`` or ``theta_dst``.
        points: the pairs that were tried, in any order.
    """
    lines = {}
    for name in SWEPT[theta]:
        best: dict[float, float] = {}
        for point in points:
            if name in point.metrics:
                place: float = getattr(point, theta)
                best[place] = max(best.get(place, float("-inf")), point.metrics[name])
        if len(best) > 1:
            lines[name] = tuple(sorted(best.items()))
    return Chart(title=f"{split}: metrics over {theta}", x_name=theta, y_name="value", lines=lines)
