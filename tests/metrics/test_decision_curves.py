"""Precision-recall and calibration against hand counts."""

from __future__ import annotations

import pytest

from proassist_lit.metrics.decision_curves import MOST_POINTS, CalibrationBin, decision_curves
from proassist_lit.types import FrameOutput, Reference, Transcript


def stream(probs: list[float], labels: list[int | None], dst: float | None = None) -> Transcript:
    frames = tuple(
        FrameOutput(
            frame_idx=i, time_s=i / 2, speak_prob=p, dst_prob=dst, speak=p >= 0.5, dst=False
        )
        for i, p in enumerate(probs)
    )
    references = tuple(Reference(speak_label=label, dst_label=0) for label in labels)
    return Transcript(
        stream_id="s", dataset="toy", fps=2, steps=(), frames=frames, references=references
    )


def test_curves_are_hand_counts_over_labelled_frames_of_all_streams() -> None:
    curves = decision_curves(
        [stream([0.1, 0.4, 0.35], [0, 0, 1]), stream([0.8, 0.99], [1, None])], "speak", num_bins=2
    )
    assert curves is not None
    assert (curves.num_frames, curves.num_positive) == (4, 2)
    assert curves.thresholds == pytest.approx((0.1, 0.35, 0.4, 0.8))
    assert curves.precisions == pytest.approx((2 / 4, 2 / 3, 1 / 2, 1))
    assert curves.recalls == pytest.approx((1, 1, 0.5, 0.5))
    low, high = curves.bins
    assert (low.mean_prob, low.share_positive, low.num_frames) == pytest.approx(
        ((0.1 + 0.4 + 0.35) / 3, 1 / 3, 3)
    )
    assert high == CalibrationBin(pytest.approx(0.8), 1.0, 1)


def test_long_curves_are_thinned_with_both_ends() -> None:
    n = 5 * MOST_POINTS
    curves = decision_curves(
        [stream([i / n for i in range(n)], [i % 2 for i in range(n)])], "speak"
    )
    assert curves is not None
    assert MOST_POINTS // 2 < len(curves.thresholds) <= MOST_POINTS
    assert (curves.thresholds[0], curves.thresholds[-1]) == (0.0, pytest.approx((n - 1) / n))
    assert curves.recalls[0] == 1


def test_thinned_curves_hold_exactly_at_hundredths_and_where_asked() -> None:
    # One frame in twenty is positive, and all of these are at the top, as of a trained head.
    n = 20 * MOST_POINTS
    probs = [(i / n) ** 3 for i in range(n)]
    labels = [int(i >= n * 0.95 or i % 400 == 7) for i in range(n)]
    asked = 0.98765
    curves = decision_curves([stream(probs, labels)], "speak", exact_at=[asked])
    assert curves is not None
    for theta in (*(k / 100 for k in range(99)), asked):
        k = next(k for k, t in enumerate(curves.thresholds) if t >= theta)
        fired = [label for p, label in zip(probs, labels, strict=True) if p >= theta]
        assert curves.precisions[k] == pytest.approx(sum(fired) / len(fired))
        assert curves.recalls[k] == pytest.approx(sum(fired) / sum(labels))


def test_thinned_curves_are_even_in_recall() -> None:
    # All positives are within a hundredth: points even in threshold alone would miss them.
    n = 20 * MOST_POINTS
    probs = [0.001 + 0.5 * i / n / 100 + (0.99 if i >= n - 200 else 0) for i in range(n)]
    labels = [int(i >= n - 200) for i in range(n)]
    curves = decision_curves([stream(probs, labels)], "speak")
    assert curves is not None
    steps = [a - b for a, b in zip(curves.recalls, curves.recalls[1:], strict=False)]
    assert max(steps) <= 2 / 100


@pytest.mark.parametrize(("head", "labels"), [("speak", [1, 1, None]), ("dst", [0, 1, 0])])
def test_no_curves_without_both_labels_or_without_the_head(
    head: str, labels: list[int | None]
) -> None:
    assert decision_curves([stream([0.1, 0.2, 0.3], labels)], head) is None
