"""Writes a video anew with what an assistant said and ticked off drawn on it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from proassist_lit.atomic import replacing
from proassist_lit.data.timeline import event_frame
from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.live.drawing import Drawer
from proassist_lit.live.subtitles import Cue, Line, make_cues
from proassist_lit.types import DialogueState, FrameOutput
from proassist_lit.vision.video import decode_video, frame_time, read_info

_TICKS_A_SECOND = 30
"""Times at which something may change, where the video has fewer pictures, or too many."""

_CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first one that this PyAV can write is taken."""


def write_annotated(
    path: Path,
    video: Path,
    frames: Sequence[FrameOutput],
    steps: Sequence[tuple[str, str]],
    *,
    fps: float,
    font: Path | None = None,
) -> None:
    """Write what was watched of a video as an MP4, whole or not at all, without its sound.

    Pictures come as often as in the video, each with what was said and known at its time; one is
    written only where something changes.

    Args:
        path: the file.
        video: what was watched.
        frames: the answers, at least one.
        steps: (id, name) of every step.
        fps: frames per second that were watched.
        font: a TrueType font for languages that Pillow's own cannot write.

    Raises:
        ConfigError: PyAV can write no codec that we know, or the font cannot be read.
        VideoError: the file cannot be written. (A fault of ``video`` behind what was watched is
            none.)
    """
    info = read_info(video)
    rate = Fraction(info.rate if 20 <= info.rate <= 60 else _TICKS_A_SECOND)
    rate = rate.limit_denominator(1001)
    drawer = Drawer(info.width, info.height, steps, font)
    page = _Page(frames, make_cues(frames))
    codec = _codec()
    begin_s, end_s = frames[0].time_s, frames[-1].time_s + 1 / fps
    first = event_frame(begin_s, float(rate))
    try:
        with (
            replacing(path) as temporary,
            av.open(
                str(temporary), "w", format="mp4", options={"movflags": "faststart"}
            ) as container,
        ):
            stream: Any = container.add_stream(codec, rate=rate)
            stream.width, stream.height = drawer.size
            stream.pix_fmt = "yuv420p"
            if codec == "libx264":
                stream.options = {"preset": "veryfast"}
            else:
                stream.bit_rate = 4_000_000
            start_s = frame_time(first, float(rate))
            pictures = decode_video(video, float(rate), start_s=start_s, end_s=end_s)
            last: tuple[Any, ...] | None = None
            drawn: NDArray[np.uint8] | None = None
            number = -1
            for number, picture in enumerate(_sound(pictures)):
                shown = (picture, *page.at(float((first + number) / rate)))
                if last is None or picture is not last[0] or shown[1:] != last[1:]:
                    drawn, last = drawer.draw(*shown), shown
                    _encode(container, stream, drawn, number)
            if drawn is not None and number > 0:
                _encode(container, stream, drawn, number + 1)  # the last one lasts as long
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or name another "
            "place."
        ) from error


class _Page:
    """What is to be read beside the picture at any time."""

    def __init__(self, frames: Sequence[FrameOutput], cues: Sequence[Cue]) -> None:
        self._frames, self._cues = frames, cues
        self._times_s = [frame.time_s for frame in frames]
        self._starts_ms = [cue.start_ms for cue in cues]

    def at(self, time_s: float) -> tuple[tuple[Line, ...], DialogueState]:
        """What is being said at a time, and the state of the steps."""
        # The last one that is not later; rounding must not make it the one before.
        frame = max(bisect_right(self._times_s, time_s + 1e-6) - 1, 0)
        cue = bisect_right(self._starts_ms, time_s * 1000 + 1) - 1
        lasts = cue >= 0 and time_s * 1000 < self._cues[cue].end_ms
        return self._cues[cue].lines if lasts else (), self._frames[frame].state


def _encode(container: Any, stream: Any, picture: NDArray[np.uint8], number: int) -> None:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = number, 1 / stream.codec_context.framerate
    container.mux(stream.encode(frame))


def _sound(pictures: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Pictures to the first fault, which was told when they were watched."""
    try:
        yield from pictures
    except VideoError:
        return


def _codec() -> str:
    for name in _CODECS:
        try:
            av.Codec(name, "w")
        except (ValueError, av.FFmpegError):
            continue
        return name
    raise ConfigError(
        f"PyAV was built without a codec that writes videos ({', '.join(_CODECS)}); install its "
        "wheel (pip install av), or leave --mp4 out."
    )
