"""Those who watch a stream together, as their thresholds have decided alike so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from proassist_lit.streaming.stream import Stream
from proassist_lit.types import FrameOutput


@dataclass
class Branch:
    """Rows of thresholds that have decided alike so far.

    Attributes:
        stream: what they remember.
        rows: their places among the thresholds.
        frames: their answers.
        tape: ids written at the frame under way, those that waited before them included.
    """

    stream: Stream
    rows: list[int]
    frames: list[FrameOutput] = field(default_factory=list)
    tape: list[int] = field(default_factory=list)

    def part(self, rows: list[int]) -> Branch:
        """Let ``rows`` go their own way from here."""
        self.rows = [row for row in self.rows if row not in rows]
        return Branch(self.stream.copy(), rows, list(self.frames))
