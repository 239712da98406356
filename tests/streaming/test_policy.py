from __future__ import annotations

import statistics
from copy import copy

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.streaming.config import SpeakRule, StreamConfig
from proassist_lit.streaming.policy import NEVER, DecisionPolicy, forced_values


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


def test_a_running_sum_begins_anew_when_it_has_spoken() -> None:
    policy = DecisionPolicy(rule=SpeakRule.RUNNING_SUM)

    # 0.5, 1.0, 1.75; 0.5, 1.4, 1.5
    assert decide(policy, [0.5, 0.5, 0.75, 0.5, 0.9, 0.1], theta=1.5) == [
        False, False, True, False, False, True
    ]  # fmt: skip


def test_a_running_sum_goes_on_while_the_gap_keeps_it_silent() -> None:
    policy = DecisionPolicy(min_gap_frames=2, rule=SpeakRule.RUNNING_SUM)

    assert decide(policy, [0.75] * 4, theta=0.75) == [True, False, False, True]
    assert policy.value(0.25) == 0.25
    decide(policy, [0.5], theta=0.5)
    assert policy.value(0.25) == 0.75  # of the gap
    policy.note_reply()
    assert policy.value(0.25) == 0.25


def test_a_z_score_is_that_of_the_twenty_frames_before() -> None:
    policy = DecisionPolicy(rule=SpeakRule.Z_SCORE)
    probs = [(i * 37 % 41) / 41 for i in range(40)]

    for i, prob in enumerate(probs):
        before = probs[max(0, i - 20) : i]
        want = 0.0
        if len(before) >= 5:
            want = (prob - statistics.mean(before)) / statistics.pstdev(before)
        assert policy.value(prob) == pytest.approx(want)
        policy.note(prob, yes=i % 7 == 0)  # what was said changes nothing


def test_nearly_constant_probabilities_are_nothing_unusual() -> None:
    policy = DecisionPolicy(rule=SpeakRule.Z_SCORE)
    decide(policy, [0.5, 0.5 + 1e-9] * 5, theta=9.0)

    assert abs(policy.value(0.5 + 1e-7)) < 1e-3
    assert policy.value(0.6) == pytest.approx(100)


@pytest.mark.parametrize("rule", SpeakRule)
def test_no_rule_says_yes_to_silence_watched_ahead(rule: SpeakRule) -> None:
    policy = DecisionPolicy(rule=rule, min_gap_frames=9)
    decide(policy, [0.9] * 9, theta=0.0)  # a sum far above the threshold, which the gap holds back
    policy.min_gap_frames = 0

    ahead = copy(policy)
    assert decide(ahead, [NEVER] * 30, theta=-1e9) == [False] * 30
    assert policy.says(0.95, 0.0)  # of which the one who watched ahead forgot nothing


def test_forced_values_are_summed_from_reply_to_reply() -> None:
    probs, replies = [0.5, 0.25, 0.5, 0.125], [False, True, False, False]

    def values(rule: SpeakRule, times: int = 1) -> list[float]:
        said = replies * times
        return forced_values(probs * times, said, said, DecisionPolicy(rule=rule))

    assert values(SpeakRule.THRESHOLD) == probs
    assert values(SpeakRule.RUNNING_SUM) == [0.5, 0.75, 0.5, 0.625]
    assert values(SpeakRule.Z_SCORE, times=3)[:6] == pytest.approx(
        [0.0] * 5 + [(0.25 - 0.375) / statistics.pstdev([0.5, 0.25, 0.5, 0.125, 0.5])], abs=0.1
    )


def test_forced_values_are_those_of_frames_at_which_streams_decide() -> None:
    probs = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    spans = [False, False, True, False, False, False, False]  # a dst span is no reply
    policy = DecisionPolicy(stride=2)

    assert forced_values(probs, [False] * 7, spans, policy) == [
        NEVER, 0.2, NEVER, NEVER, 0.5, NEVER, 0.7
    ]  # fmt: skip
    assert policy == DecisionPolicy(stride=2)
    assert forced_values(probs, spans, spans, DecisionPolicy(min_gap_frames=2)) == [
        0.1, 0.2, 0.3, NEVER, NEVER, 0.6, 0.7
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta_speak": 1.5}, r"stream\.theta_speak must be in \[0, 1\] or null, got 1\.5"),
        (
            {"theta_dst": 1.5, "rule": SpeakRule.RUNNING_SUM},
            r"stream\.theta_dst must be in \[0, 1\] or null, got 1\.5",
        ),
        (
            {"theta_speak": float("inf"), "rule": SpeakRule.Z_SCORE},
            r"stream\.theta_speak must be a finite number or null, got inf",
        ),
        (
            {"rise": 0.1, "rule": SpeakRule.Z_SCORE},
            r"stream\.rise=0\.1 and stream\.rule=z_score are two ways.*stream\.rise=null",
        ),
    ],
    ids=["threshold", "dst", "inf", "rise"],
)
def test_thresholds_of_another_rule_have_another_range(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**changes)
    for rule, theta in ((SpeakRule.RUNNING_SUM, 7.5), (SpeakRule.Z_SCORE, -0.5)):
        config = StreamConfig(rule=rule, theta_speak=theta)
        assert config.theta_speak_prob is None
    assert StreamConfig(theta_speak=0.25).theta_speak_prob == 0.25
