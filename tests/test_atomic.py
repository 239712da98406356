from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from proassist_lit.atomic import part_of, replacing, whole_folder


def test_what_is_flushed_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []  # Windows flushes nothing else
    monkeypatch.setattr(
        os, "fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE)
    )
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert modes == [os.O_RDWR]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_folder_is_written_over_what_a_killed_process_of_our_number_left(tmp_path: Path) -> None:
    target = tmp_path / "made"
    left = part_of(target)  # in a container every start may have the same number
    left.mkdir()
    (left / "half").touch()
    with whole_folder(target) as folder:
        (folder / "whole").touch()
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [target]
