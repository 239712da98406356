from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from proassist_lit.atomic import replacing


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
