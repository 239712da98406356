"""Encodes videos: threads decode, the encoder works, every finished video is a file."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from proassist_lit.atomic import part_of
from proassist_lit.data.feature_content import write_content
from proassist_lit.encoding.decoding import Decoders, Unit
from proassist_lit.encoding.jobs import Job
from proassist_lit.encoding.manifest import Settings, is_done, notes_for
from proassist_lit.errors import FeatureError, ProAssistError
from proassist_lit.vision.decoders import choose_decoder
from proassist_lit.vision.encoder import UNIT, FrameEncoder

_SYNCHRONIZE, _ACCESS_DENIED, _WAIT_TIMEOUT = 0x100000, 5, 0x102
"""Of Windows: a right to a process, an error, and what waiting for one that lives ends in."""

_LEFT_S = 24 * 3600
"""After so long nobody writes any more to a file that was begun."""


class Watcher(Protocol):
    """Who wants to know how far it is."""

    def frames(self, job: Job, num_frames: int) -> None:
        """Some frames of a video are encoded."""
        ...

    def video(self, job: Job, num_frames: int, error: ProAssistError | None) -> None:
        """A video is done, or given up."""
        ...


@dataclass
class Outcome:
    """What became of the videos.

    Attributes:
        num_videos: encoded now.
        num_frames: frames of these.
        num_before: videos that were done before.
        failures: what was wrong with the others, by video.
    """

    num_videos: int = 0
    num_frames: int = 0
    num_before: int = 0
    failures: dict[Job, ProAssistError] = field(default_factory=dict)


def encode_videos(
    jobs: Sequence[Job],
    encoder: FrameEncoder,
    settings: Settings,
    watcher: Watcher,
    *,
    batch: int = 32,
    num_workers: int = 1,
    keep_damaged: bool = False,
) -> Outcome:
    """Encode those of the videos that are not done yet.

    A feature depends on its video and ``settings`` alone (and on the kind of processor): frames
    go through the encoder in units of fixed composition, whatever ``batch`` and ``num_workers``
    are. In memory are at most ``batch`` frames for the encoder, as many that wait for it, a unit a
    worker, and the features of the videos that are being decoded.

    Args:
        jobs: the videos.
        encoder: the encoder of ``settings``.
        settings: how features are made.
        watcher: is told of what is done.
        batch: frames that are sent to the encoder at a time, rounded up to whole units.
        num_workers: threads that decode; >= 1.
        keep_damaged: write what could be decoded of damaged videos, too.

    Raises:
        ConfigError: the decoder of ``settings`` is not installed.
    """
    decode = choose_decoder(settings.decoder, encoder.device)
    todo = [job for job in jobs if not is_done(job, settings)]
    outcome = Outcome(num_before=len(jobs) - len(todo))
    num_units = max(1, -(-batch // UNIT))
    parts: dict[Job, list[dict[str, Tensor]]] = {}
    with Decoders(
        todo, encoder, fps=settings.fps, num_workers=num_workers, ahead=num_units, decode=decode
    ) as decoders:
        for items in decoders.batches(num_units):
            units = [item for item in items if isinstance(item, Unit)]
            for unit, grids in zip(units, _encode(encoder, units, settings), strict=True):
                parts.setdefault(unit.job, []).append(grids)
                watcher.frames(unit.job, unit.num_frames)
            for item in items:
                if isinstance(item, Unit):
                    continue
                num_frames, error = 0, item.error
                found = parts.pop(item.job, [])
                if found and (error is None or keep_damaged):
                    damaged, error = error is not None, None
                    try:
                        num_frames = _write(item.job, found, encoder, settings, damaged=damaged)
                    except (FeatureError, OSError) as failed:
                        error = _as_failure(item.job, failed)
                if error is None:
                    outcome.num_videos += 1
                    outcome.num_frames += num_frames
                else:
                    outcome.failures[item.job] = error
                watcher.video(item.job, num_frames, error)
    return outcome


def _encode(
    encoder: FrameEncoder, units: Sequence[Unit], settings: Settings
) -> list[dict[str, Tensor]]:
    """(F, cells, E) float16 grids of each unit, on the CPU."""
    # All are sent before the first result is waited for: an accelerator never is without work.
    encoded = [encoder.encode_prepared(unit.prepared, settings.grids) for unit in units]
    return [
        {grid: cells.cpu()[: unit.num_frames] for grid, cells in grids.items()}
        for unit, grids in zip(units, encoded, strict=True)
    ]


def _write(
    job: Job,
    parts: Sequence[dict[str, Tensor]],
    encoder: FrameEncoder,
    settings: Settings,
    *,
    damaged: bool,
) -> int:
    """Write the features of a video; return how many frames there are."""
    grids = {grid: torch.cat([part[grid] for part in parts]) for grid in settings.grids}
    for grid, cells in grids.items():
        wrong = (~cells.isfinite()).flatten(1).any(dim=1).nonzero()
        if len(wrong):
            raise FeatureError(
                f"{job.video}: the encoder gave numbers for frame {int(wrong[0])} (grid {grid}) "
                "that float16 cannot hold; try --dtype float32, or another layer."
            )
    num_frames = len(next(iter(grids.values())))
    notes = notes_for(
        job, settings, num_frames=num_frames, device=encoder.device.type, damaged=damaged
    )
    _remove_left_behind(job)
    write_content(job.target, grids, notes)
    return num_frames


def _remove_left_behind(job: Job) -> None:
    """Remove what a killed process had begun to write for this video.

    Whether one of another machine still runs is not known here; but a file is written in one go.
    """
    for path in job.target.parent.glob(f".{job.target.name}.*.part"):
        pid = path.suffixes[-2][1:]
        if not pid.isdecimal():
            continue
        without_host = f".{job.target.name}.{pid}.part"  # as earlier versions called it
        is_of_here = path.name in (part_of(job.target, pid=int(pid)).name, without_host)
        with suppress(FileNotFoundError):  # its writer is done
            age_s = time.time() - path.stat().st_mtime
            if not is_running(int(pid)) if is_of_here else age_s > _LEFT_S:
                path.unlink()


def is_running(pid: int) -> bool:
    """Whether there is a process of this number."""
    if sys.platform == "win32":  # os.kill would send it Ctrl+C, which is signal 0 there
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            return ctypes.get_last_error() == _ACCESS_DENIED  # it is somebody else's
        try:
            return bool(kernel.WaitForSingleObject(handle, 0) == _WAIT_TIMEOUT)
        finally:
            kernel.CloseHandle(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _as_failure(job: Job, error: FeatureError | OSError) -> ProAssistError:
    if isinstance(error, FeatureError):
        return error
    return FeatureError(
        f"{job.target}: cannot be written ({error.strerror or error}); make room, or choose "
        "another --out."
    )
