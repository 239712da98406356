"""What the page's threshold explorer is given: curves of the heads and the sweep, by split."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.metrics.decision_curves import DecisionCurves
from proassist_lit.metrics.directions import lower_is_better
from proassist_lit.report.run_report import RunReport
from proassist_lit.report.scoreboard import spoken_name

FRAMES = ("f1", "precision", "recall")
"""Metrics of a head over single frames, as the explorer lists them."""

STREAMED = {
    "speak": (
        "utterance_f1",
        "utterance_precision",
        "utterance_recall",
        "content_accuracy",
        "utterance_time_difference_s",
    ),
    "dst": (
        "dst_update_f1",
        "dst_update_precision",
        "dst_update_recall",
        "dst_joint_goal_accuracy",
    ),
}
"""Metrics of a sweep that each threshold moves."""


def threshold_data(report: RunReport) -> list[dict[str, Any]]:
    """What can be explored of every split; splits with neither curves nor a sweep are left out.

    Numbers of the curves keep all their digits: a threshold decides at ``>=``.
    """
    known = {*report.decisions, *report.sweep, *(view.split for view in report.streams)}
    order = sorted(known, key=lambda split: (split != "val", split != "test", split))
    data = [_split(report, split) for split in order]
    return [part for part in data if part["heads"] or part["sweep"]]


def _split(report: RunReport, split: str) -> dict[str, Any]:
    curves, points = report.decisions.get(split, {}), report.sweep.get(split, ())
    names = [
        f"{head}_{name}" for head in STREAMED for name in FRAMES
    ] + [name for streamed in STREAMED.values() for name in streamed]  # fmt: skip
    unknown = {} if report.compares_probs else {"speak": None}
    run = {name: _finite(report.metrics.get(f"{split}/{name}")) for name in names}
    return {
        "split": split,
        "theta": {**_thetas(report, split), **unknown},
        "heads": {head: _head(curves[head]) for head in STREAMED if head in curves},
        "sweep": _sweep(points, [head for head in STREAMED if head not in unknown]),
        "lower": [name for name in names if lower_is_better(name)],
        "run": {name: value for name, value in run.items() if value is not None},
    }


def _thetas(report: RunReport, split: str) -> dict[str, float | None]:
    """Thresholds of the run: those of its metrics, else those of a stream of the split."""
    view = next((view for view in report.streams if view.split == split), None)
    return {
        head: _finite(report.metrics.get(f"{split}/theta_{head}"))
        if f"{split}/theta_{head}" in report.metrics or view is None
        else _finite(getattr(view, f"theta_{head}"))
        for head in STREAMED
    }


def _head(curves: DecisionCurves) -> dict[str, Any]:
    return {
        "thresholds": list(curves.thresholds),
        "precisions": list(curves.precisions),
        "recalls": list(curves.recalls),
        "bins": [[b.mean_prob, b.share_positive, b.num_frames] for b in curves.bins],
        "frames": curves.num_frames,
        "positive": curves.num_positive,
    }


def _sweep(points: Sequence[SweepPoint], heads: Collection[str]) -> dict[str, Any] | None:
    """Metrics of all points, by name; names that no point has are left out.

    So are those of the heads whose thresholds are none of a probability.
    """
    names = {
        head: [
            name
            for name in streamed
            if head in heads and any(name in point.metrics for point in points)
        ]
        for head, streamed in STREAMED.items()
    }
    shown = [name for streamed in names.values() for name in streamed]
    if not shown:
        return None
    return {
        "names": names,
        "labels": {name: spoken_name(name) for name in shown},
        "points": [
            {
                "speak": point.theta_speak,
                "dst": point.theta_dst,
                "values": _values(point.metrics, shown),
            }
            for point in sorted(points, key=lambda point: (point.theta_speak, point.theta_dst))
        ],
    }


def _values(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    values = {name: _finite(metrics.get(name)) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _finite(value: float | str | None) -> float | None:
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(value)
