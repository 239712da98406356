"""VideoLLM-online's teacher-forced metrics, computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from proassist_lit.metrics.lm import TeacherForcedMetrics
from proassist_lit.streaming.forced_turns import ForcedTurn

ON_TIME = ForcedTurn(
    num_frames=8, num_words=4, num_right_words=3, cross_entropy=math.log(2), late_frames=0
)
EARLY = ForcedTurn(
    num_frames=10, num_words=5, num_right_words=5, cross_entropy=math.log(4), late_frames=-3
)
LATE = ForcedTurn(num_frames=6, num_words=2, num_right_words=0, cross_entropy=0.0, late_frames=5)


def scores(*turns: ForcedTurn, fps: float = 2.0) -> dict[str, float]:
    metric = TeacherForcedMetrics()
    metric.update(turns, fps)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(
    ("turn", "perplexity", "correctness", "time_difference_s", "fluency"),
    [
        (ON_TIME, 2, 3 / 4, 0, (8 + 3) / (8 + 4)),
        (EARLY, 4, 1, 1.5, (10 - 3) / (10 + 5)),
        (LATE, 1, 0, 2.5, (6 - 1) / (6 + 2)),
    ],
)
def test_forced_metrics_of_one_turn(
    turn: ForcedTurn,
    perplexity: float,
    correctness: float,
    time_difference_s: float,
    fluency: float,
) -> None:
    assert scores(turn) == pytest.approx(
        {
            "forced_perplexity": perplexity,
            "forced_correctness": correctness,
            "forced_time_difference_s": time_difference_s,
            "forced_fluency": fluency,
            "forced_num_turns": 1,
        }
    )


def test_time_is_counted_by_the_frames_of_a_second() -> None:
    assert scores(EARLY, fps=1.0)["forced_time_difference_s"] == 3
    assert scores(EARLY, fps=1.5)["forced_time_difference_s"] == 2


def test_perplexity_that_no_number_holds_is_infinite() -> None:
    got = scores(ON_TIME, replace(EARLY, cross_entropy=800.0))
    assert got["forced_perplexity"] == math.inf
    assert got["forced_correctness"] == pytest.approx((3 / 4 + 1) / 2)


def test_forced_metrics_are_means_over_turns_not_over_words() -> None:
    got = scores(ON_TIME, EARLY, LATE)
    assert got["forced_perplexity"] == pytest.approx((2 + 4 + 1) / 3)
    assert got["forced_correctness"] == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert got["forced_time_difference_s"] == pytest.approx((0 + 1.5 + 2.5) / 3)
    assert got["forced_fluency"] == pytest.approx((11 / 12 + 7 / 15 + 5 / 8) / 3)


def test_perfect_turns_have_fluency_one_and_no_time_difference() -> None:
    perfect = ForcedTurn(
        num_frames=3, num_words=2, num_right_words=2, cross_entropy=0.0, late_frames=0
    )
    got = scores(perfect, perfect)
    assert got["forced_fluency"] == 1
    assert got["forced_perplexity"] == 1
    assert got["forced_time_difference_s"] == 0


def test_forced_metrics_of_streams_add_up() -> None:
    whole, parts = TeacherForcedMetrics(), [TeacherForcedMetrics() for _ in range(2)]
    for metric, turns, fps in ((parts[0], [ON_TIME, LATE], 2.0), (parts[1], [EARLY], 1.0)):
        metric.update(turns, fps)
        whole.update(turns, fps)
    parts[0].merge_state(parts[1])
    assert parts[0].compute() == whole.compute()
    assert float(whole.compute()["forced_time_difference_s"]) == pytest.approx((2.5 + 3) / 3)


def test_no_turns_no_numbers() -> None:
    assert scores() == {}
