"""How far a stream is watched ahead, as if it were silent."""

from __future__ import annotations

import math

FIRST_GAP = 16
"""Frames between spans, as long as nothing is known."""

LOOKING_BACK = 0.5
"""What it costs a stream to look back at its whole context, in tokens fed."""


class Pace:
    """Learns from a stream how many frames lie between its spans."""

    def __init__(self) -> None:
        self._silent_frames = 0  # since the last span
        self._gap = 0.0  # usually; 0 for unknown

    def note(self, fired: bool) -> None:
        """Take in whether anything was decided on at the next frame."""
        self._silent_frames += 1
        if fired:
            gap, self._silent_frames = self._silent_frames, 0
            self._gap = gap if not self._gap else 0.7 * self._gap + 0.3 * gap

    def frames_ahead(self, step_rows: float, num_tokens_per_img: int) -> float:
        """Frames to watch ahead, so that steps and what is watched in vain cost least together.

        With a span every ``gap`` frames, blocks of b take gap / b steps from one to the next, and
        (b - 1) / 2 frames are watched in vain when it comes.

        Args:
            step_rows: this stream's share of what a step costs beside its tokens, in tokens fed.
            num_tokens_per_img: K.
        """
        silent = self._silent_frames
        gap = max(self._gap, silent) if self._gap else max(FIRST_GAP, 4 * silent)
        return math.sqrt(2 * (step_rows + LOOKING_BACK) * gap / num_tokens_per_img)
