from __future__ import annotations

from proassist_lit.streaming.policy import ThresholdPolicy


def decide(policy: ThresholdPolicy, probs: list[float]) -> list[bool]:
    return [policy.decide(prob) for prob in probs]


def test_yes_from_the_threshold_on() -> None:
    assert decide(ThresholdPolicy(0.5), [0.4999, 0.5, 0.9, 0.1]) == [False, True, True, False]


def test_threshold_zero_always_and_one_only_when_certain() -> None:
    assert decide(ThresholdPolicy(0.0), [0.0, 0.5]) == [True, True]
    assert decide(ThresholdPolicy(1.0), [0.999, 1.0]) == [False, True]


def test_minimum_gap_counts_frames_after_a_yes() -> None:
    policy = ThresholdPolicy(0.5, min_gap_frames=2)

    assert decide(policy, [0.9] * 7) == [True, False, False, True, False, False, True]


def test_a_blocked_yes_does_not_lengthen_the_gap() -> None:
    policy = ThresholdPolicy(0.5, min_gap_frames=2)

    assert decide(policy, [0.9, 0.0, 0.9, 0.0, 0.9]) == [True, False, False, False, True]


def test_reset_forgets_the_last_yes() -> None:
    policy = ThresholdPolicy(0.5, min_gap_frames=3)
    decide(policy, [0.9])

    policy.reset()

    assert decide(policy, [0.9]) == [True]
