"""When a probability becomes a decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ThresholdPolicy:
    """Yes iff P >= theta, and not within the minimum gap after the last yes.

    Attributes:
        theta: threshold, in [0, 1].
        min_gap_frames: frames after a yes at which the answer is no.
    """

    theta: float
    min_gap_frames: int = 0
    _frames_since: int | None = None

    def decide(self, prob: float) -> bool:
        """Decide at the next frame, given P(yes) in [0, 1]."""
        if self._frames_since is not None:
            self._frames_since += 1
        blocked = self._frames_since is not None and self._frames_since <= self.min_gap_frames
        yes = prob >= self.theta and not blocked
        if yes:
            self._frames_since = 0
        return yes

    def reset(self) -> None:
        """Forget the frames before."""
        self._frames_since = None
