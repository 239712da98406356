"""When a probability becomes a decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from proassist_lit.streaming.config import SpeakRule, StreamConfig

NEVER = -math.inf
"""A probability, or what a rule makes of it, that no threshold says yes to."""

Z_FRAMES = 20
"""Frames before this one that a z-score is made of (MMDuet's default)."""

Z_LEAST_FRAMES = 5
"""With fewer of them a z-score is 0: nothing is unusual yet."""

Z_LEAST_SPREAD = 1e-3
"""Least standard deviation that a z-score is counted in, or rounding would be unusual."""


@dataclass(frozen=True)
class Thresholds:
    """What the probabilities of both decisions are compared with.

    Attributes:
        speak: speak iff P(speak) >= this, in [0, 1]; by another rule than ``threshold``, iff what
            the rule makes of P(speak) is.
        dst: update the state iff P(update) >= this, in [0, 1].
        rise: speak iff P(speak) rose by more than this since the frame before, and otherwise iff
            it is >= 1/2 (ProAssist's ``diffX``); None for ``speak``.
    """

    speak: float
    dst: float
    rise: float | None = None

    @classmethod
    def of(cls, config: StreamConfig) -> Thresholds:
        """Those of ``config``, in which both must be set."""
        assert config.theta_speak is not None
        assert config.theta_dst is not None
        return cls(config.theta_speak, config.theta_dst, config.rise)


@dataclass
class DecisionPolicy:
    """Turns the probabilities of one head, frame by frame, into decisions.

    Nothing that it remembers is ever changed in place: ``copy`` makes one that goes on by itself.

    Attributes:
        min_gap_frames: frames after a yes at which the answer is no.
        stride: the head is read at every so many frames since the last span only; 1 for all.
        rule: what is made of the probabilities before it is compared with the threshold.
    """

    min_gap_frames: int = 0
    stride: int = 1
    rule: SpeakRule = SpeakRule.THRESHOLD
    _frames_since_yes: int | None = None
    _frames_since_span: int = 0
    _previous: float | None = None
    _sum: float = 0.0
    _recent: tuple[float, ...] = ()

    @classmethod
    def to_speak(cls, config: StreamConfig) -> DecisionPolicy:
        """Of the decision to speak."""
        return cls(config.min_gap_frames, config.stride, config.rule)

    @classmethod
    def to_update(cls, config: StreamConfig) -> DecisionPolicy:
        """Of the decision to update the state."""
        return cls(stride=config.stride)

    @property
    def may_say(self) -> bool:
        """Whether the answer at the next frame may be yes."""
        gap = self._frames_since_yes
        if gap is not None and gap < self.min_gap_frames:
            return False
        return (self._frames_since_span + 1) % self.stride == 0

    def value(self, prob: float) -> float:
        """What is compared with the threshold where P(yes) at the next frame is ``prob``.

        Source: MMDuet, arXiv:2411.17991, as released. Its sum begins anew when it passes the
        threshold; so does ours, and at a reply of the reference where that makes the context. Its
        z-score is over the last 20 frames, with the standard deviation of a whole population, in a
        loop that the released code keeps but no longer calls; it is silent at the first frames, as
        many as the user says. That nearly constant probabilities have no spread is ours.
        """
        match self.rule:
            case SpeakRule.THRESHOLD:
                return prob
            case SpeakRule.RUNNING_SUM:
                return self._sum + prob
        number = len(self._recent)
        if number < Z_LEAST_FRAMES:
            return 0.0 if math.isfinite(prob) else prob
        mean = sum(self._recent) / number
        spread = math.sqrt(sum((before - mean) ** 2 for before in self._recent) / number)
        return (prob - mean) / max(spread, Z_LEAST_SPREAD)

    def says(self, prob: float, theta: float, rise: float | None = None) -> bool:
        """Whether P(yes) ``prob`` at the next frame means yes, by the thresholds given."""
        if not self.may_say:
            return False
        if rise is None:
            return self.value(prob) >= theta
        return prob >= 0.5 or (self._previous is not None and prob - self._previous > rise)

    def note(self, prob: float, yes: bool) -> None:
        """The decision at the next frame was ``yes``: go on to the frame after."""
        self._frames_since_span += 1
        self._previous = prob
        if self.rule is SpeakRule.RUNNING_SUM:
            self._sum += prob
        elif self.rule is SpeakRule.Z_SCORE:
            self._recent = (*self._recent, prob)[-Z_FRAMES:]
        if yes:
            self._frames_since_yes = 0
            self.note_reply()
        elif self._frames_since_yes is not None:
            self._frames_since_yes += 1

    def note_reply(self) -> None:
        """Something was said at this frame, by whomever: a sum begins anew."""
        self._sum = 0.0

    def note_span(self) -> None:
        """Something was written at this frame: the stride counts from here."""
        self._frames_since_span = 0


def forced_values(
    probs: Sequence[float], answers: Sequence[bool], spans: Sequence[bool], policy: DecisionPolicy
) -> list[float]:
    """What is compared with the threshold at every frame, where the reference says what is said.

    Args:
        probs: P(yes) of every frame, the reference dialogue being the context.
        answers: whether the reference says yes at it.
        spans: whether the reference writes anything at it.
        policy: at the beginning of a stream; it is left as it is.

    Returns:
        (F,) ``NEVER`` at frames where nothing is decided.
    """
    policy, values = copy(policy), []
    for prob, answer, span in zip(probs, answers, spans, strict=True):
        values.append(policy.value(prob) if policy.may_say else NEVER)
        policy.note(prob, yes=answer)
        if span:
            policy.note_span()
    return values
