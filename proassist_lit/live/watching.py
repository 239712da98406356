"""An assistant watches a video file: as fast as it goes, or in real time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.data.timeline import event_frame
from proassist_lit.errors import ProAssistError
from proassist_lit.live.assistant import LiveAssistant
from proassist_lit.live.task import Task
from proassist_lit.sequence.script import Text
from proassist_lit.types import FrameOutput, Reference, Transcript
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.video import decode_video, frame_time


@dataclass
class Watched:
    """What came of watching a video; all that was answered, however it ended.

    Attributes:
        task: what the assistant was told.
        fps: frames per second.
        frames: the answers; frames that were dropped are missing.
        num_dropped: frames whose time had passed before they could be looked at.
        answer_s: seconds from having a frame to having its answer, one for each of ``frames``.
        unheard: words whose time did not come before the end.
        error: why it ended before the video did; None if it did not.
        interrupted: whether somebody stopped it.
    """

    task: Task
    fps: float
    frames: list[FrameOutput] = field(default_factory=list)
    num_dropped: int = 0
    answer_s: list[float] = field(default_factory=list)
    unheard: list[Text] = field(default_factory=list)
    error: ProAssistError | None = None
    interrupted: bool = False

    def transcript(self, stream_id: str) -> Transcript:
        """As a stream that was answered; nobody knows what would have been right."""
        return Transcript(
            stream_id=stream_id,
            dataset="watched",
            fps=self.fps,
            steps=tuple((step.id, step.name) for step in self.task.steps),
            frames=tuple(self.frames),
            references=(Reference(),) * len(self.frames),
        )


class RealTime:
    """The clock of a stream that does not wait for who watches it.

    Args:
        fps: frames per second.
        now: seconds of a clock that never goes back.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        fps: float,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._fps, self._now, self._sleep = fps, now, sleep
        self._begin: tuple[float, int] | None = None

    def arrives(self, frame_idx: int) -> bool:
        """Wait until a frame is there; False if it is gone: its successor is there already."""
        if self._begin is None:
            self._begin = (self._now(), frame_idx)
        begin_s, first = self._begin
        wait_s = begin_s + (frame_idx - first) / self._fps - self._now()
        if wait_s <= -1 / self._fps:
            return False
        if wait_s > 0:
            self._sleep(wait_s)
        return True


def watch_video(
    assistant: LiveAssistant,
    task: Task,
    video: Path,
    arrivals: Mapping[int, Sequence[Text]],
    *,
    clock: RealTime | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    on_frame: Callable[[FrameOutput], None] | None = None,
) -> Watched:
    """Watch a video to its end, to a fault, or until somebody interrupts.

    Args:
        assistant: who watches.
        task: what it is told before.
        video: the file.
        arrivals: what is heard before which frame; before one that is dropped: before the next.
        clock: shows one frame after the other in real time, and drops what comes too late;
            without it every frame is looked at, with the features that ``encode`` would make.
        start_s: the first frame watched is the first one that is not earlier; ...
        end_s: ... and all are earlier than this.
        on_frame: called after every frame.

    Raises:
        ConfigError: the limits of the stream leave no room.
        VideoError: the file is no video at all.
    """
    fps = assistant.fps
    first = event_frame(start_s, fps)
    session = assistant.session(task, name=video.name, start_frame_idx=first)
    watched = Watched(task, fps)
    waiting = dict(arrivals)
    pictures = decode_video(video, fps, start_s=frame_time(first, fps), end_s=end_s)
    try:
        looks = _units(assistant, pictures) if clock is None else ((p, None) for p in pictures)
        for frame_idx, (picture, features) in enumerate(looks, start=first):
            if clock is not None and not clock.arrives(frame_idx):
                watched.num_dropped += 1
                continue
            began_s = time.monotonic()
            session.skip_to(frame_idx)
            due = [frame for frame in sorted(waiting) if frame <= frame_idx]
            texts = [text for frame in due for text in waiting[frame]]
            output = session.step(picture if features is None else features, texts)
            for frame in due:
                del waiting[frame]
            watched.answer_s.append(time.monotonic() - began_s)
            watched.frames.append(output)
            if on_frame is not None:
                on_frame(output)
    except ProAssistError as error:
        if not watched.frames:
            raise
        watched.error = error
    except KeyboardInterrupt:
        watched.interrupted = True
    watched.unheard = [text for frame in sorted(waiting) for text in waiting[frame]]
    return watched


def _units(
    assistant: LiveAssistant, pictures: Iterator[NDArray[np.uint8]]
) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
    """Pictures with their features, encoded some at a time; those before a fault come first."""
    while True:
        unit: list[NDArray[np.uint8]] = []
        fault: ProAssistError | None = None
        try:
            while len(unit) < UNIT:
                unit.append(next(pictures))
        except StopIteration:
            pass
        except ProAssistError as error:
            fault = error
        if unit:
            yield from zip(unit, assistant.look(np.stack(unit)), strict=True)
        if fault is not None:
            raise fault
        if len(unit) < UNIT:
            return
