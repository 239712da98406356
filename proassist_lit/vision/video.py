"""Decodes videos at a steady number of frames per second, true to their presentation times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.vision.video_file import VideoFile

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file says of itself, and its first picture.

    Attributes:
        width: pixels, as it is shown (turned if the file asks for it).
        height: likewise.
        duration_s: seconds; None if the file does not say.
        rate: pictures per second on average.
        codec: name of the codec.
    """

    width: int
    height: int
    duration_s: float | None
    rate: float
    codec: str


def read_info(path: Path) -> VideoInfo:
    """Look at a video without decoding more than one picture.

    Raises:
        VideoError: it is missing, empty, no video, sound alone, or without a picture.
    """
    with VideoFile(path) as video:
        picture = next(video.pictures(), None)
        if picture is None:
            raise _without_pictures(video)
        height, width, _ = video.to_rgb(picture).shape
        return VideoInfo(
            width=width,
            height=height,
            duration_s=video.duration_s,
            rate=float(video.rate),
            codec=video.codec,
        )


def decode_video(
    path: Path,
    fps: float,
    *,
    start_s: float | Fraction = 0.0,
    end_s: float | None = None,
    threads: int = 1,
) -> Iterator[NDArray[np.uint8]]:
    """Decode a video at ``fps`` frames per second.

    Frame k is the picture shown at k / fps seconds: the last one whose presentation time, from the
    start of the video track on, is not later. (Before the first picture, that is the first.) The
    last frame is the last one before the end of the last picture. Presentation times are exact
    fractions, so variable frame rates, reordered pictures and starts other than 0 are all the same.
    Pictures are turned and mirrored as the file asks; pixels that are not square stay as they are.

    Args:
        path: the video.
        fps: frames per second; > 0.
        start_s: the frames given are those with start_s <= k / fps (``frame_time`` of a frame
            begins with that frame), ...
        end_s: ... and k / fps < end_s; None for all to the end. They are those of the whole video,
            found by seeking.
        threads: threads that decode.

    Yields:
        (H, W, 3) uint8 RGB, all of one size. The same array again where a picture is shown for
        several frames: do not change it.

    Raises:
        VideoError: it cannot be opened (before the first frame), or it is damaged or cut off
            (after all frames that could be decoded). Damage may leave grey or smeared frames.
    """
    raster = Raster.of(fps, start_s, end_s)
    if raster.is_empty:
        return
    num_frames = 0
    with VideoFile(path, threads=threads) as video:
        pictures = ((p, p.time_s, p.duration_s) for p in video.pictures(raster.first_s))
        for picture, count in raster.choose(pictures, video):
            rgb = video.to_rgb(picture)
            for _ in range(count):
                yield rgb
            num_frames += count
        if video.fault:
            raise raster.damaged(video, num_frames)


def frame_time(frame_idx: int, fps: float) -> Fraction:
    """When a frame is shown, in seconds; exact, as a rounded 5 / 3 may be later than frame 5."""
    return frame_idx / _exact(fps)


@dataclass(frozen=True)
class Raster:
    """The times at which a video is looked at, and the rule which picture is shown at each.

    Attributes:
        rate: frames per second.
        first: number of the first frame that is wanted.
        end_s: all frames are earlier; None for all to the end.
    """

    rate: Fraction
    first: int
    end_s: Fraction | None

    @classmethod
    def of(cls, fps: float, start_s: float | Fraction, end_s: float | None) -> Raster:
        """As of ``decode_video``.

        Raises:
            ConfigError: ``fps`` is not above 0.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps must be above 0, got {fps}; 2 is usual.")
        rate = _exact(fps)
        first = math.ceil(max(_exact(start_s), Fraction(0)) * rate)
        return cls(rate, first, None if end_s is None else _exact(end_s))

    @property
    def first_s(self) -> Fraction:
        """Time of the first frame."""
        return self.first / self.rate

    @property
    def is_empty(self) -> bool:
        """Whether no frame is wanted, however long the video is."""
        return self.end_s is not None and self.first_s >= self.end_s

    def choose(
        self, pictures: Iterable[tuple[_T, Fraction, Fraction | None]], video: VideoFile
    ) -> Iterator[tuple[_T, int]]:
        """The pictures that are shown at the frames, each with how many frames show it.

        Args:
            pictures: in the order they are shown, each with its time and length.
            video: where they come from.

        Raises:
            VideoError: there is no picture.
        """
        index = self.first
        for picture, until_s in _spans(pictures, video):
            count = 0
            while (index + count) / self.rate < until_s and not self._is_over(index + count):
                count += 1
            index += count
            if count:
                yield picture, count
            if self._is_over(index):
                return

    def damaged(self, video: VideoFile, num_frames: int) -> VideoError:
        """The error for a video with a fault, after so many frames."""
        last_s = float((self.first + num_frames - 1) / self.rate)
        upto = f"frames to {last_s:.2f} s" if num_frames else "no frame"
        return VideoError(
            f"{video.path}: is damaged: {video.fault}; {upto} could be decoded. Copy or record it "
            "again, or take what is there (encode --keep-damaged)."
        )

    def _is_over(self, index: int) -> bool:
        return self.end_s is not None and index / self.rate >= self.end_s


def _spans(
    pictures: Iterable[tuple[_T, Fraction, Fraction | None]], video: VideoFile
) -> Iterator[tuple[_T, Fraction]]:
    """Pictures, each with the time at which it is gone."""
    shown: tuple[_T, Fraction, Fraction | None] | None = None
    for picture in pictures:
        if shown is not None:
            yield shown[0], picture[1]
        shown = picture
    if shown is None:
        raise _without_pictures(video)
    what, time_s, duration_s = shown
    yield what, time_s + (duration_s or 1 / video.rate)


def _exact(value: float | Fraction) -> Fraction:
    """The number that was meant: 29.97 is 2997 / 100; fractions stay as they are."""
    return Fraction(str(value))


def _without_pictures(video: VideoFile) -> VideoError:
    return VideoError(
        f"{video.path}: not one picture could be decoded ({video.fault or 'it holds none'}); copy "
        "or record it again."
    )
