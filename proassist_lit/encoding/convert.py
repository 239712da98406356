"""Converts whole folders of features between ProAssist's Arrow files and ours, without a loss."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from proassist_lit.data.feature_content import other_format_of, read_content, write_content
from proassist_lit.errors import ConfigError, FeatureError
from proassist_lit.vision.encoder import GRID_SIDES

_DATES_NS = (1, 100, 10**3, 10**6, 10**7, 10**9, 2 * 10**9)
"""Units in which file systems keep dates (ext4, NTFS, some network disks, exFAT, FAT)."""


@dataclass(frozen=True)
class Conversion:
    """A feature file and what it becomes."""

    source: Path
    target: Path


def find_conversions(source: Path, out: Path, to: str) -> list[Conversion]:
    """The feature files of the other format, and where they go: the same place below ``out``.

    Args:
        source: a feature file, or a folder that is searched for some.
        out: folder of the new files.
        to: ``arrow`` or ``safetensors``.

    Raises:
        ConfigError: there are none, or a video's features would lie beside others of it.
    """
    suffix = ".safetensors" if to == "arrow" else ".arrow"
    if source.is_dir():
        found = sorted(p for p in source.rglob(f"*{suffix}") if p.is_file() and p.name[0] != ".")
        folder = source
    else:
        found = [source] if source.suffix == suffix and source.is_file() else []
        folder = source.parent
    if not found:
        raise ConfigError(
            f"{source}: holds no {suffix} file to convert to {to}; name a feature file, or a "
            "folder of some."
        )
    conversions = [
        Conversion(path, out / path.relative_to(folder).with_suffix(f".{to}")) for path in found
    ]
    for conversion in conversions:
        if beside := other_format_of(conversion.target):
            raise ConfigError(
                f"{beside}: {conversion.target.name} would lie beside it; of a video that has "
                "both, .arrow is read before .safetensors; give another folder as OUT."
            )
    return conversions


def convert(conversion: Conversion, *, fps: float) -> bool:
    """Convert a file, atomically, unless that was done before; return whether it was to be done.

    Grids keep their numbers, bit by bit, and notes are carried over, so that a file of ours,
    converted there and back, is the file that it was. (Of ProAssist's the rows are the same; they
    may be cut into other batches.) The new file takes the date of the old one, and it was done
    before if both have one date: a file that is brought here from elsewhere may be other and older.

    Args:
        conversion: from where to where.
        fps: frames per second, for files that do not say it; their encoder is their folder's name.

    Raises:
        FeatureError: the file is damaged or no feature file, the other format cannot hold it, or
            the new one cannot be written.
    """
    source, target = conversion.source, conversion.target
    date_ns = source.stat().st_mtime_ns
    if target.exists() and _same_date(target.stat().st_mtime_ns, date_ns):
        return False
    grids, notes = read_content(source)
    _check(source, grids)
    if target.suffix == ".safetensors":
        folder = source.resolve().parent.name
        notes = {"fps": str(fps), "encoder": folder, "rendered": "false", **notes}
    try:
        write_content(target, grids, notes)
        os.utime(target, ns=(date_ns, date_ns))
    except OSError as error:
        raise FeatureError(
            f"{target}: cannot be written ({error.strerror or error}); make room, or choose "
            "another folder."
        ) from error
    return True


def _same_date(kept_ns: int, date_ns: int) -> bool:
    """Whether a date is one that a file was given, as far as its file system keeps it."""
    return any(kept_ns == date_ns // unit * unit for unit in _DATES_NS)


def _check(path: Path, grids: Mapping[str, Tensor]) -> None:
    """Refuse what is no feature file, or what one of the formats cannot hold.

    Raises:
        FeatureError: naming the grid.
    """
    lengths = {name: len(cells) for name, cells in grids.items()}
    if len(set(lengths.values())) != 1:
        raise FeatureError(
            f"{path}: its grids are of different lengths ({lengths}); encode the video again."
        )
    for name, cells in grids.items():
        side = GRID_SIDES.get(name)
        if side is not None and cells.shape[1] != side * side:
            raise FeatureError(
                f"{path}: grid {name!r} has {cells.shape[1]} cells; encode the video again."
            )
        if cells.dtype == torch.bfloat16:
            raise FeatureError(
                f"{path}: grid {name!r} is bfloat16, which Arrow cannot hold; encode the video "
                "again, in float16."
            )
