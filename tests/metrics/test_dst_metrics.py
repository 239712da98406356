from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.dst import DstMetrics, _matched_pairs
from proassist_lit.types import Transition, Update

REFERENCE = {2: "S1->start", 10: "S1->complete;S2->start", 20: "S2->complete"}


def score(*transcripts, **arguments) -> dict[str, float]:
    metric = DstMetrics(**arguments)
    metric.update(transcripts)
    return {key: float(value) for key, value in metric.compute().items()}


def test_perfect_updates_score_exactly_one(make_transcript) -> None:
    scores = score(make_transcript(30, updates=REFERENCE, ref_updates=REFERENCE, num_steps=2))
    assert scores.pop("dst_invalid") == 0
    assert set(scores.values()) == {1.0}
    assert len(scores) == 6


def test_one_frame_late_keeps_the_updates_but_not_every_state(make_transcript) -> None:
    late = {i + 1: text for i, text in REFERENCE.items()}
    scores = score(make_transcript(30, updates=late, ref_updates=REFERENCE, num_steps=2))
    assert scores["dst_update_f1"] == 1.0
    assert scores["dst_joint_goal_accuracy"] == pytest.approx(27 / 30)  # wrong at 2, 10 and 20


def test_update_tolerance_is_two_seconds_inclusive(make_transcript) -> None:
    def recall(shift: int) -> float:
        updates = {10 + shift: "S1->start"}
        reference = {10: "S1->start"}
        stream = make_transcript(30, updates=updates, ref_updates=reference, num_steps=1)
        return score(stream)["dst_update_recall"]

    assert [recall(shift) for shift in (-5, -4, 4, 5)] == [0.0, 1.0, 1.0, 0.0]


def test_extra_and_missing_and_repeated_updates_count(make_transcript) -> None:
    # S1 started twice (the second changes nothing), S2 completed instead of started, one missed.
    updates = {2: "S1->start", 3: "S1->start", 10: "S1->complete;S2->complete"}
    scores = score(make_transcript(30, updates=updates, ref_updates=REFERENCE, num_steps=2))
    assert scores["dst_update_precision"] == pytest.approx(2 / 4)
    assert scores["dst_update_recall"] == pytest.approx(2 / 4)
    assert scores["dst_update_f1"] == pytest.approx(2 / 4)
    # Right step in time: S1 at 2, S1 at 10, S2 at 10; of 4 predicted and 4 reference updates.
    assert scores["dst_step_accuracy"] == pytest.approx(3 / 5)
    assert scores["dst_transition_accuracy"] == pytest.approx(2 / 3)
    assert scores["dst_invalid"] == 1
    # Wrong from 10 to 19: S2 is completed where it should be in progress.
    assert scores["dst_joint_goal_accuracy"] == pytest.approx(20 / 30)


def test_state_tracking_is_left_out_without_steps(make_transcript) -> None:
    assert score(make_transcript(30)) == {}
    with_steps = make_transcript(10, num_steps=1)
    assert score(make_transcript(30), with_steps) == score(with_steps)


def test_what_is_right_where_nobody_knows_is_not_asked(make_transcript) -> None:
    # Of S2 there is an update near, of another transition; of S1 there is none.
    updates = {2: "S1->start", 10: "S1->complete", 12: "S2->complete"}
    reference = {2: "S1->start", 11: "S2->start"}

    def scores(unsupervised: range) -> dict[str, float]:
        return score(
            make_transcript(
                20, updates=updates, ref_updates=reference, unsupervised=unsupervised, num_steps=2
            )
        )

    known, unknown = scores(range(0)), scores(range(8, 20))
    assert known["dst_update_precision"] == pytest.approx(1 / 3)
    assert unknown["dst_update_precision"] == pytest.approx(1 / 2)
    assert (known["dst_step_accuracy"], unknown["dst_step_accuracy"]) == (pytest.approx(2 / 3), 1)
    assert known["dst_joint_goal_accuracy"] == pytest.approx(10 / 20)
    assert unknown["dst_joint_goal_accuracy"] == 1


def test_updates_are_scored_where_no_frame_is_known(make_transcript) -> None:
    updates, nowhere = {2: "S1->start", 9: "S2->start"}, range(20)

    def scores(reference: dict[int, str]) -> dict[str, float]:
        return score(
            make_transcript(
                20, updates=updates, ref_updates=reference, unsupervised=nowhere, num_steps=2
            )
        )

    found = scores({3: "S1->start"})
    assert (found["dst_update_precision"], found["dst_update_recall"]) == (1, 1)
    assert "dst_joint_goal_accuracy" not in found
    assert scores({}) == {}  # of which nothing is known


def test_a_right_update_is_counted_beside_a_wrong_one_of_its_step(make_transcript) -> None:
    updates, reference = {10: "S1->start", 12: "S1->complete"}, {11: "S1->complete"}

    def scores(unsupervised: range) -> dict[str, float]:
        return score(
            make_transcript(
                20, updates=updates, ref_updates=reference, unsupervised=unsupervised, num_steps=1
            )
        )

    known, unknown = scores(range(0)), scores(range(8, 20))
    for found in (known, unknown):
        assert found["dst_update_precision"] == pytest.approx(1 / 2)
        assert found["dst_update_recall"] == 1


def test_what_is_no_fault_is_none_at_the_frames_behind(make_transcript) -> None:
    # In the dark, S1 is started; S2 is repeated, which changes nothing. At 22 it is known of S1.
    updates = {2: "S2->start", 10: "S1->start;S2->start", 22: "S1->complete"}
    reference = {2: "S2->start", 22: "S1->start"}

    def scores(unsupervised: range) -> dict[str, float]:
        return score(
            make_transcript(
                30, updates=updates, ref_updates=reference, unsupervised=unsupervised, num_steps=2
            )
        )

    known, unknown = scores(range(0)), scores(range(8, 16))
    assert known["dst_joint_goal_accuracy"] == pytest.approx(10 / 30)
    assert unknown["dst_joint_goal_accuracy"] == pytest.approx(14 / 22)  # wrong from 22 on
    assert (known["dst_invalid"], unknown["dst_invalid"]) == (1, 0)


def test_a_reference_that_is_missed_in_the_dark_is_a_fault(make_transcript) -> None:
    stream = make_transcript(20, ref_updates={5: "S1->start"}, unsupervised=range(8), num_steps=1)
    scores = score(stream)
    assert scores["dst_update_recall"] == scores["dst_joint_goal_accuracy"] == 0


def test_saying_nothing_scores_zero_where_updates_are_due(make_transcript) -> None:
    scores = score(make_transcript(30, ref_updates=REFERENCE, num_steps=2))
    for key in ("update_precision", "update_f1", "step_accuracy", "transition_accuracy"):
        assert scores[f"dst_{key}"] == 0.0
    assert scores["dst_joint_goal_accuracy"] == pytest.approx(2 / 30)


def test_negative_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tolerance_s must be >= 0 s, got -1"):
        DstMetrics(tolerance_s=-1)


frames = st.lists(st.integers(0, 20), max_size=8).map(sorted)


@settings(max_examples=100, deadline=None)
@given(left=frames, right=frames, tolerance=st.integers(0, 4))
def test_updates_are_matched_as_often_as_possible(left, right, tolerance) -> None:
    update = Update("S1", Transition.START)
    found = _matched_pairs(
        [(i, update) for i in left], [(j, update) for j in right], tolerance, key=str
    )
    close = [[float(abs(i - j) <= tolerance) for j in right] for i in left]
    if left and right:
        rows, cols = linear_sum_assignment(close, maximize=True)
        assert len(found) == sum(close[r][c] for r, c in zip(rows, cols, strict=True))
    else:
        assert not found


def test_dst_metrics_merged_equal_the_whole(make_transcript) -> None:
    late = {i + 3: text for i, text in REFERENCE.items()}
    streams = [
        make_transcript(30, updates=late, ref_updates=REFERENCE, num_steps=2),
        make_transcript(12, updates={1: "S1->start"}, num_steps=3, fps=1.0),
    ]
    parts = [DstMetrics() for _ in streams]
    for part, stream in zip(parts, streams, strict=True):
        part.update([stream])
    parts[0].merge_state(parts[1])
    merged = {key: float(value) for key, value in parts[0].compute().items()}
    assert merged == score(*streams)
