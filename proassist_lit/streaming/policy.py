"""When a probability becomes a decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DecisionPolicy:
    """Turns the probabilities of one head, frame by frame, into decisions.

    Attributes:
        theta: yes iff P >= theta, in [0, 1].
        rise: yes iff P rose by more than this since the frame before, and otherwise iff P >= 1/2
            (ProAssist's ``diffX``); None for the threshold alone.
        min_gap_frames: frames after a yes at which the answer is no.
        stride: the head is read at every so many frames since the last span only; 1 for all.
    """

    theta: float
    rise: float | None = None
    min_gap_frames: int = 0
    stride: int = 1
    _frames_since_yes: int | None = None
    _frames_since_span: int = 0
    _previous: float | None = None

    def decide(self, prob: float) -> bool:
        """Decide at the next frame, given P(yes) in [0, 1]."""
        if self._frames_since_yes is not None:
            self._frames_since_yes += 1
        self._frames_since_span += 1
        rose = (
            self.rise is not None
            and self._previous is not None
            and prob - self._previous > self.rise
        )
        yes = rose or prob >= (self.theta if self.rise is None else 0.5)
        self._previous = prob
        gap = self._frames_since_yes
        blocked = gap is not None and gap <= self.min_gap_frames
        yes = yes and not blocked and self._frames_since_span % self.stride == 0
        if yes:
            self._frames_since_yes = 0
        return yes

    def note_span(self) -> None:
        """Something was written at this frame: the stride counts from here."""
        self._frames_since_span = 0
