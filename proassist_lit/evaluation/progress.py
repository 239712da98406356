"""The progress lines of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from proassist_lit.frame_speed import FrameSpeed
from proassist_lit.streaming.shards import rank
from proassist_lit.types import Transcript

OnFinished = Callable[[str, Transcript], None]
"""Told the split and the transcript of a finished stream."""


def saying(what: str) -> AbstractContextManager[object]:
    """A moving line on a terminal that says what is done meanwhile; by the first process alone."""
    return nullcontext() if rank() > 0 else Console().status(f"{what} ...")


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


class Teller:
    """Counts finished streams, and tells of those that are in the result."""

    def __init__(self, progress: StreamProgress, on_stream: OnFinished) -> None:
        self.progress, self.on_stream = progress, on_stream

    def count(self, _row: int, _transcript: Transcript) -> None:
        """Note a stream that is not in the result, or not surely."""
        self.progress.stream()

    def of(self, split: str) -> Callable[[int, Transcript], None]:
        """What notes the streams of ``split``."""

        def finish(row: int, transcript: Transcript) -> None:
            self.count(row, transcript)
            self.on_stream(split, transcript)

        return finish
