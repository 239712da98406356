"""Decodes videos with TorchCodec, on an NVIDIA GPU if asked; which frames, PyAV says."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.video import Raster
from proassist_lit.vision.video_file import VideoFile

_TOLERANCE_S = 1e-3
"""TorchCodec tells times as floating numbers."""


def decode_by_torchcodec(
    path: Path,
    fps: float,
    *,
    start_s: float | Fraction = 0.0,
    end_s: float | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> Iterator[NDArray[np.uint8]]:
    """Decode a video as ``decode_video`` does: the same frames by the same times.

    Colours may differ in the last digits, and a video that asks to be mirrored is turned only. The
    times of all pictures are read with PyAV, without decoding; TorchCodec decodes those that are
    shown at a frame.

    Args:
        path: the video.
        fps: as of ``decode_video``; so are start_s and end_s.
        start_s: ...
        end_s: ...
        threads: threads that decode on a CPU.
        device: cpu, or a CUDA device, whose video decoder is used.

    Yields:
        (H, W, 3) uint8 RGB, all of one size.

    Raises:
        ConfigError: TorchCodec is not installed, or cannot be loaded.
        VideoError: as of ``decode_video``; or TorchCodec cannot decode it, or sees other times.
    """
    library = load_torchcodec()
    raster = Raster.of(fps, start_s, end_s)
    if raster.is_empty:
        return
    num_frames = 0
    with VideoFile(path) as video:
        times = video.times()
        pictures = ((i, *span) for i, span in enumerate(times))
        chosen = list(raster.choose(pictures, video))
        try:
            decoder = library.VideoDecoder(
                str(path),
                stream_index=video.track,
                dimension_order="NHWC",
                num_ffmpeg_threads=threads,
                device=device,
                seek_mode="exact",
            )
            for begin in range(0, len(chosen), UNIT):
                some = chosen[begin : begin + UNIT]
                batch = decoder.get_frames_at([i for i, _ in some])
                told_s = [float(seconds) for seconds in batch.pts_seconds]
                _check([times[i][0] + video.zero_s for i, _ in some], told_s, path)
                for rgb, (_, count) in zip(batch.data.cpu().numpy(), some, strict=True):
                    for _ in range(count):
                        yield rgb
                    num_frames += count
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, VideoError):
                raise
            if video.fault:
                raise raster.damaged(video, num_frames) from error
            raise VideoError(
                f"{path}: TorchCodec cannot decode it beyond {num_frames} frames "
                f"({' '.join(str(error).split())[:200]}); use --decoder pyav."
            ) from error
        if video.fault:
            raise raster.damaged(video, num_frames)


def load_torchcodec() -> Any:
    """The module ``torchcodec.decoders``.

    Raises:
        ConfigError: it is not installed, or FFmpeg or CUDA is not there for it.
    """
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--decoder torchcodec: it cannot be loaded ({reason}). Install it in the version for "
            "your torch (pip install torchcodec) with FFmpeg's shared libraries (apt install "
            "ffmpeg, or conda install ffmpeg), or use --decoder pyav."
        ) from error
    return decoders


def _check(expected_s: list[Any], told_s: list[float], path: Path) -> None:
    """Refuse pictures of other times than those that were chosen."""
    for expected, told in zip(expected_s, told_s, strict=True):
        if abs(float(expected) - told) > _TOLERANCE_S:
            raise VideoError(
                f"{path}: TorchCodec gives the picture at {told:.3f} s for the one at "
                f"{float(expected):.3f} s; use --decoder pyav."
            )
