from __future__ import annotations

from pathlib import Path

import pytest

from proassist_lit.data.records import write_records
from tests.fakes import dialogue


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three dialogues of two files, in a folder."""
    write_records(tmp_path / "data/a.jsonl", [dialogue(), dialogue(video_uid="second")])
    write_records(tmp_path / "data/b.json", [dialogue(video_uid="third")])
    (tmp_path / "data/manifest.json").write_text("{}")
    return tmp_path / "data"
