"""Decodes videos at a steady number of frames per second, true to their presentation times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.vision.video_file import Picture, VideoFile


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
    start_s: float = 0.0,
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
        start_s: the frames given are those with start_s <= k / fps, ...
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
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps must be above 0, got {fps}; 2 is usual.")
    rate = _exact(fps)
    end = None if end_s is None else _exact(end_s)
    index = math.ceil(max(_exact(start_s), Fraction(0)) * rate)
    if end is not None and index / rate >= end:
        return
    with VideoFile(path, threads=threads) as video:
        for picture, until_s in _spans(video, index / rate):
            rgb = None
            while index / rate < until_s and (end is None or index / rate < end):
                rgb = video.to_rgb(picture) if rgb is None else rgb
                yield rgb
                index += 1
            if end is not None and index / rate >= end:
                break
        if video.fault:
            raise VideoError(
                f"{path}: is damaged: {video.fault}; frames to {float((index - 1) / rate):.2f} s "
                "could be decoded. Copy or record it again, or take what is there "
                "(encode --keep-damaged)."
            )


def _spans(video: VideoFile, start_s: Fraction) -> Iterator[tuple[Picture, Fraction]]:
    """Pictures, each with the time at which it is gone; from the one shown at ``start_s`` on."""
    shown: Picture | None = None
    for picture in video.pictures(start_s):
        if shown is not None:
            yield shown, picture.time_s
        shown = picture
    if shown is None:
        raise _without_pictures(video)
    yield shown, shown.time_s + (shown.duration_s or 1 / video.rate)


def _exact(value: float) -> Fraction:
    """The number that was meant: 29.97 is 2997 / 100."""
    return Fraction(str(value))


def _without_pictures(video: VideoFile) -> VideoError:
    return VideoError(
        f"{video.path}: not one picture could be decoded ({video.fault or 'it holds none'}); copy "
        "or record it again."
    )
