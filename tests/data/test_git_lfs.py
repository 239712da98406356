"""Files of a clone that were not fetched are called so, whatever was to be read of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.feature_content import read_content, read_notes
from proassist_lit.data.frames import read_frames
from proassist_lit.data.records import read_records
from proassist_lit.errors import RecordError
from proassist_lit.report.data_files import read_data_file

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132735\n"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.arrow", lambda path: open_features(path, ("cls",)).shape()),
        ("x.arrow", lambda path: open_features(path, ("cls",)).read(0, 1)),
        ("x.safetensors", lambda path: open_features(path, ("cls",)).shape()),
        ("x.arrow", read_notes),
        ("x.safetensors", read_content),
        ("x.arrow", lambda path: read_frames(path, [0])),
        ("x.jsonl", read_records),
        ("x.json", read_records),
    ],
)
def test_a_pointer_is_called_one(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(POINTER)
    match = rf"{name} is only a pointer of Git LFS, its content was not fetched; .* git lfs pull"
    with pytest.raises(RecordError, match=match):
        read(path)


def test_a_pointer_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(POINTER)
    assert len(read_data_file(path).faults) == 1
