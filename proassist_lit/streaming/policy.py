"""When a probability becomes a decision."""

from __future__ import annotations

from dataclasses import dataclass

from proassist_lit.streaming.config import StreamConfig


@dataclass(frozen=True)
class Thresholds:
    """What the probabilities of both decisions are compared with.

    Attributes:
        speak: speak iff P(speak) >= this, in [0, 1].
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

    Attributes:
        min_gap_frames: frames after a yes at which the answer is no.
        stride: the head is read at every so many frames since the last span only; 1 for all.
    """

    min_gap_frames: int = 0
    stride: int = 1
    _frames_since_yes: int | None = None
    _frames_since_span: int = 0
    _previous: float | None = None

    def says(self, prob: float, theta: float, rise: float | None = None) -> bool:
        """Whether P(yes) ``prob`` at the next frame means yes, by the thresholds given."""
        gap = self._frames_since_yes
        if gap is not None and gap < self.min_gap_frames:
            return False
        if (self._frames_since_span + 1) % self.stride:
            return False
        if rise is None:
            return prob >= theta
        return prob >= 0.5 or (self._previous is not None and prob - self._previous > rise)

    def note(self, prob: float, yes: bool) -> None:
        """The decision at the next frame was ``yes``: go on to the frame after."""
        self._frames_since_span += 1
        self._previous = prob
        if yes:
            self._frames_since_yes = 0
        elif self._frames_since_yes is not None:
            self._frames_since_yes += 1

    def note_span(self) -> None:
        """Something was written at this frame: the stride counts from here."""
        self._frames_since_span = 0
