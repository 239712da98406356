from __future__ import annotations

from proassist_lit.streaming.policy import DecisionPolicy


def decide(
    policy: DecisionPolicy, probs: list[float], theta: float = 0.5, rise: float | None = None
) -> list[bool]:
    answers = []
    for prob in probs:
        answers.append(policy.says(prob, theta, rise))
        policy.note(prob, answers[-1])
    return answers


def test_yes_from_the_threshold_on() -> None:
    assert decide(DecisionPolicy(), [0.4999, 0.5, 0.9, 0.1]) == [False, True, True, False]


def test_threshold_zero_always_and_one_only_when_certain() -> None:
    assert decide(DecisionPolicy(), [0.0, 0.5], theta=0.0) == [True, True]
    assert decide(DecisionPolicy(), [0.999, 1.0], theta=1.0) == [False, True]


def test_minimum_gap_counts_frames_after_a_yes() -> None:
    policy = DecisionPolicy(min_gap_frames=2)

    assert decide(policy, [0.9] * 7) == [True, False, False, True, False, False, True]


def test_a_blocked_yes_does_not_lengthen_the_gap() -> None:
    policy = DecisionPolicy(min_gap_frames=2)

    assert decide(policy, [0.9, 0.0, 0.9, 0.0, 0.9]) == [True, False, False, False, True]


def test_a_rise_is_a_yes_and_otherwise_one_half_decides() -> None:
    # the first frame has no previous; 0.1 -> 0.45 rises by more, 0.45 -> 0.4 does not, 0.55 >= 1/2
    assert decide(DecisionPolicy(), [0.1, 0.45, 0.4, 0.55, 0.2], theta=0.9, rise=0.3) == [
        False, True, False, True, False
    ]  # fmt: skip


def test_stride_decides_at_every_so_many_frames_since_the_last_span() -> None:
    policy = DecisionPolicy(stride=3)

    assert decide(policy, [0.9] * 7) == [False, False, True, False, False, True, False]
    policy.note_span()
    assert decide(policy, [0.9] * 3) == [False, False, True]
