"""The column of a progress line that says how many frames a second go by."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text


class FrameSpeed(ProgressColumn):
    """Frames per second so far."""

    def render(self, task: Task) -> Text:
        """The finished speed, or the present one; a dash before there is any."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} frames/s" if speed else "- frames/s")
