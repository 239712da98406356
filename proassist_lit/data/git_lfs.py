"""Pointers that Git LFS leaves in the place of files whose content was not fetched."""

from __future__ import annotations

from pathlib import Path

_BEGINNING = b"version https://git-lfs"


def is_pointer(path: Path) -> bool:
    """Whether a file holds no more than where Git LFS has its content."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False


def pointer_fault(path: Path) -> str:
    """What is wrong with a pointer, and what to do; without a full stop."""
    return (
        f"{path} is only a pointer of Git LFS, its content was not fetched; in the clone that it "
        f"lies in, run git lfs pull, or for less of it git lfs pull -I 'DIR/**'"
    )
