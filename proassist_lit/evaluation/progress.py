"""The progress line of an evaluation."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from proassist_lit.frame_speed import FrameSpeed
from proassist_lit.streaming.shards import rank


class StreamProgress:
    """Frames and streams answered, and the time left; shown by the first process alone.

    Args:
        total: frames to answer.
    """

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[streams]} streams"),
            MofNCompleteColumn(),
            FrameSpeed(),
            TimeRemainingColumn(),
            disable=rank() > 0,
        )
        self._task = self._bar.add_task("Streaming", streams=0, total=total)

    def __enter__(self) -> StreamProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def describe(self, what: str) -> None:
        """Say what is streamed now."""
        self._bar.update(self._task, description=f"Streaming {what}")

    def add(self, num_frames: int) -> None:
        """Count frames that were not in the total, and are answered."""
        total = self._bar.tasks[self._task].total or 0
        self._bar.update(self._task, total=total + num_frames)

    def frames(self, num_frames: int) -> None:
        """Count answered frames."""
        self._bar.advance(self._task, num_frames)

    def stream(self) -> None:
        """Count a finished stream."""
        self._bar.update(self._task, streams=self._bar.tasks[self._task].fields["streams"] + 1)
