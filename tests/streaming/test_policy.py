from __future__ import annotations

from proassist_lit.streaming.policy import DecisionPolicy


def decide(policy: DecisionPolicy, probs: list[float]) -> list[bool]:
    return [policy.decide(prob) for prob in probs]


def test_yes_from_the_threshold_on() -> None:
    assert decide(DecisionPolicy(0.5), [0.4999, 0.5, 0.9, 0.1]) == [False, True, True, False]


def test_threshold_zero_always_and_one_only_when_certain() -> None:
    assert decide(DecisionPolicy(0.0), [0.0, 0.5]) == [True, True]
    assert decide(DecisionPolicy(1.0), [0.999, 1.0]) == [False, True]


def test_minimum_gap_counts_frames_after_a_yes() -> None:
    policy = DecisionPolicy(0.5, min_gap_frames=2)

    assert decide(policy, [0.9] * 7) == [True, False, False, True, False, False, True]


def test_a_blocked_yes_does_not_lengthen_the_gap() -> None:
    policy = DecisionPolicy(0.5, min_gap_frames=2)

    assert decide(policy, [0.9, 0.0, 0.9, 0.0, 0.9]) == [True, False, False, False, True]


def test_a_rise_is_a_yes_and_otherwise_one_half_decides() -> None:
    policy = DecisionPolicy(0.9, rise=0.3)

    # the first frame has no previous; 0.1 -> 0.45 rises by more, 0.45 -> 0.4 does not, 0.55 >= 1/2
    assert decide(policy, [0.1, 0.45, 0.4, 0.55, 0.2]) == [False, True, False, True, False]


def test_stride_decides_at_every_so_many_frames_since_the_last_span() -> None:
    policy = DecisionPolicy(0.5, stride=3)

    assert decide(policy, [0.9] * 7) == [False, False, True, False, False, True, False]
    policy.note_span()
    assert decide(policy, [0.9] * 3) == [False, False, True]
