"""Threads that decode videos and prepare their frames, ahead of the encoder but not by far."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.encoding.jobs import Job
from proassist_lit.errors import ProAssistError, VideoError
from proassist_lit.vision.decoders import Decode
from proassist_lit.vision.encoder import UNIT, FrameEncoder, filled_up
from proassist_lit.vision.video import decode_video


@dataclass(frozen=True)
class Unit:
    """Frames of a video, ready for the encoder.

    Attributes:
        job: the video.
        prepared: (UNIT, ...) what the encoder takes.
        num_frames: how many of them are frames; the rest only fills up.
    """

    job: Job
    prepared: Tensor
    num_frames: int


@dataclass(frozen=True)
class End:
    """A video is at its end.

    Attributes:
        job: the video.
        error: what was wrong with it; None if nothing was.
    """

    job: Job
    error: ProAssistError | None


class Decoders:
    """Threads that decode one video each; a context manager that ends them.

    Decoding and preparing leave Python's lock to others, so threads are enough. What they are
    ahead is bounded: they wait when ``ahead`` units are waiting.

    Args:
        jobs: the videos; they are begun in this order.
        encoder: prepares their frames.
        fps: frames per second.
        num_workers: threads; where there are fewer videos, each is decoded by several.
        ahead: units that may wait for the encoder.
        decode: decodes a video.
    """

    def __init__(
        self, jobs: Sequence[Job], encoder: FrameEncoder, *, fps: float, num_workers: int,
        ahead: int, decode: Decode = decode_video,
    ) -> None:  # fmt: skip
        self._encoder, self._fps, self._decode = encoder, fps, decode
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._num_left = len(jobs)
        self._ready: queue.Queue[Unit | End] = queue.Queue(ahead)
        self._stopped = threading.Event()
        num_threads = max(1, min(num_workers, len(jobs)))
        self._threads_each = max(1, num_workers // num_threads)
        self._threads = [
            threading.Thread(target=self._work, name=f"decoder {i}", daemon=True)
            for i in range(num_threads)
        ]

    def __enter__(self) -> Decoders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def batches(self, most: int) -> Iterator[list[Unit | End]]:
        """What is ready, up to ``most`` things at a time, until all videos are at their end.

        The units of a video come in order, and its end after them.
        """
        while self._num_left:
            batch = [self._ready.get()]
            while len(batch) < most:
                try:
                    batch.append(self._ready.get_nowait())
                except queue.Empty:
                    break
            self._num_left -= sum(isinstance(item, End) for item in batch)
            yield batch

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            error: ProAssistError | None = None
            try:
                for frames in self._units(job):
                    prepared = filled_up(self._encoder.prepare(frames))
                    if not self._put(Unit(job, prepared, len(frames))):
                        return
            except ProAssistError as found:
                error = found
            except Exception as found:  # no video, however odd, may stop the others
                error = VideoError(
                    f"{job.video}: cannot be decoded ({type(found).__name__}: {found}); convert "
                    "it, say, with ffmpeg -i."
                )
                error.__cause__ = found
            self._put(End(job, error))

    def _units(self, job: Job) -> Iterator[NDArray[np.uint8]]:
        """(F, H, W, 3) frames, UNIT at a time; what could be decoded comes before the error."""
        frames: list[NDArray[np.uint8]] = []
        error: VideoError | None = None
        decoded = self._decode(job.video, self._fps, threads=self._threads_each)
        while True:
            try:
                frame = next(decoded, None)
            except VideoError as found:
                frame, error = None, found
            if frame is not None:
                frames.append(frame)
            if frames and (frame is None or len(frames) == UNIT):
                yield np.stack(frames)
                frames = []
            if error is not None:
                raise error
            if frame is None:
                return

    def _put(self, item: Unit | End) -> bool:
        """Put it where the encoder takes it from; False if nobody wants it any more."""
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
