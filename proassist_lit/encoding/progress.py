"""The progress line of encoding and converting."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from proassist_lit.encoding.jobs import Job
from proassist_lit.errors import ProAssistError
from proassist_lit.frame_speed import FrameSpeed


class EncodingProgress:
    """Videos and frames encoded, and the time left; on stderr, so that results can be piped.

    Where that is no terminal, there is a line for every video instead.

    Args:
        expected: frames of each video, as far as is known.
        num_videos: videos to encode.
    """

    def __init__(self, expected: Mapping[Job, int], num_videos: int) -> None:
        console = Console(stderr=True)
        self._lines = not console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[videos]}/" + f"{num_videos} videos"),
            MofNCompleteColumn(),
            FrameSpeed(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=self._lines,
        )
        self._expected = expected
        self._seen = dict[Job, int]()
        self._num_videos = num_videos
        self._num_done = 0
        self._task = self._bar.add_task("Encoding", videos=0, total=sum(expected.values()))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def frames(self, job: Job, num_frames: int) -> None:
        """Count encoded frames."""
        self._seen[job] = self._seen.get(job, 0) + num_frames
        self._bar.advance(self._task, num_frames)

    def video(self, job: Job, num_frames: int, error: ProAssistError | None) -> None:
        """Count a finished video; what its header promised gives way to what it had."""
        self._num_done += 1
        total = self._bar.tasks[self._task].total or 0
        total += self._seen.get(job, 0) - self._expected.get(job, 0)
        self._bar.update(self._task, videos=self._num_done, total=total)
        if self._lines:
            what = "given up" if error else f"{num_frames} frames"
            sys.stderr.write(f"{self._num_done}/{self._num_videos} {job.video}: {what}\n")


def list_failures(failures: Iterable[ProAssistError]) -> str:
    """The list at the end, a line for each."""
    return "".join(f"  {' '.join(str(error).split())}\n" for error in failures)
