"""Writes files whole or not at all: a reader meets the old file or the new one, never a part."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, beside ``path``; it takes the place of ``path`` if all goes well.

    The folder of ``path`` is made if need be. After an error ``path`` is as it was, and what was
    written is gone.

    Raises:
        IsADirectoryError: ``path`` is a folder.
    """
    if path.is_dir():  # the root has no name to put another beside, and any other fails at the end
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that os.replace stays within one file system.
    temporary = part_of(path)
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows asks for the right to write
            os.fsync(file.fileno())  # or a power cut leaves an empty file under the name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def part_of(path: Path, *, pid: int | None = None, host: str | None = None) -> Path:
    """Where a process writes what is to take the place of ``path``.

    Numbers of processes are those of a machine, and several may share the disk.

    Args:
        path: the file or folder.
        pid: number of the process; None for this one.
        host: name of its machine; None for this one.
    """
    name = hashlib.blake2b((host or platform.node()).encode(), digest_size=4).hexdigest()
    return path.with_name(f".{path.name}.{name}.{pid or os.getpid()}.part")


def remove_parts(path: Path) -> None:
    """Remove what writers of ``path`` left behind who were killed; none may be at work.

    The name may be a pattern, ``*.ckpt``.
    """
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, line ends as they are; on the disk when this returns."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write to, beside ``path``; it appears as ``path`` if all goes well.

    Raises:
        FileExistsError: ``path`` exists, and is no empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = part_of(path)
    shutil.rmtree(temporary, ignore_errors=True)  # of one who was killed and had our number
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
