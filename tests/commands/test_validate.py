from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from tests.commands.lines import Captured, error, record
from tests.data import dst_rows as dst
from tests.data.records import DATA_DIR

SAMPLE = DATA_DIR / "proassist/dialog_sample.jsonl"


def test_validate_counts_records_and_lists_every_fault(tmp_path: Path, capsys: Captured) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(record() * 2)
    turns = [{"role": "frames", "start": 0, "end": 2}, {"role": "robot"}, {"role": "user"}]
    bad.write_text(record(fps=0, conversation=turns) + record() + record(dataset=3))
    assert main(["validate", str(good)]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: 2 records, no faults\n")
    assert main(["validate", str(good), str(bad)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{bad}: 1 sound record, 4 faults"
    assert [line.split(" ")[0] for line in lines[2:6]] == [f"{bad}:1:"] * 3 + [f"{bad}:3:"]
    assert "'fps'" in lines[2]
    assert "turn 1" in lines[3]
    assert "'robot'" in lines[3]
    assert "turn 2" in lines[4]
    assert "'dataset'" in lines[5]
    assert any(re.search(r"records +3 ", line) for line in lines)


def test_validate_ends_with_2_where_something_cannot_be_read(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(record(fps=0))
    assert main(["validate", str(data), str(bad), str(tmp_path / "none.jsonl")]) == 2
    out = capsys.readouterr().out
    assert f"{bad}:1: " in out
    assert "none.jsonl: cannot be read: No such file or directory. Check" in out
    assert re.search(r"records +3 ", out)
    (tmp_path / "empty").mkdir()
    assert main(["validate", str(tmp_path / "empty")]) == 2
    assert "no prepared file below" in error(capsys)


def test_validate_without_a_sound_record_still_lists_faults(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n")
    assert main(["validate", str(tmp_path)]) == 1
    assert "not valid JSON" in capsys.readouterr().out


def test_validate_reads_folders_and_writes_a_page(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    page = tmp_path / "pages/data.html"
    assert main(["validate", str(data), "--html", str(page), "--tokens", "5"]) == 0
    out = capsys.readouterr().out
    assert f"{data}/manifest.json: left out" in out
    assert f"{data}/b.json: 1 record, no faults" in out
    assert re.search(r"utterances +12 ", out)
    assert re.search(r"speak +9 +15 +6 ", out)
    assert re.search(r"frames +30 +K = 5", out)
    assert "trained on these records, chat format compact" in out
    assert not re.search(r"https?:|<script|src=", page.read_text())
    assert main(["validate", str(data), "--tokens", "3"]) == 2
    assert "--tokens 3: choose one of 1, 5, 10, 26." in error(capsys)
    assert main(["validate", str(data), "--html", str(data)]) == 2
    assert re.search(r"--html \S+: cannot be written to \(Is a directory\)", error(capsys))
    assert main(["validate", str(data), "--html", "/"]) == 2
    assert "--html /: cannot be written to (Is a directory)" in error(capsys)


def test_prepared_rows_of_proassist_are_read_in_place(tmp_path: Path, capsys: Captured) -> None:
    if not SAMPLE.exists():
        pytest.skip(f"no real rows at {SAMPLE}")
    page = tmp_path / "page.html"
    assert main(["validate", str(SAMPLE), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    frames = sum(row["end_frame_idx"] - row["start_frame_idx"] for row in rows)
    said = [turn for row in rows for turn in row["conversation"] if turn["role"] == "assistant"]
    assert re.search(rf"utterances +{len(said)} ", out)
    assert f"{frames:,}".replace(",", "\u202f") in out
    assert main(["inspect", str(SAMPLE), "--index", "5"]) == 0


def test_validate_reads_rows_of_the_dst_extension_beside_records(
    data: Path, capsys: Captured
) -> None:
    (data / "dst.json").write_text(json.dumps([dst.row(), dst.EVENTS]))
    assert main(["validate", str(data)]) == 0
    out = capsys.readouterr().out
    assert f"{data}/dst.json: 2 records, no faults" in out
    assert re.search(r"records +5 ", out)
    assert re.search(rf"state updates +{3 * 3 + 3 + 3} ", out)

    bad = dst.with_turn(5, content="", speaking=2) | {"fps": 0}
    (data / "dst.json").write_text(json.dumps([dst.row(), bad]))
    assert main(["validate", str(data / "dst.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{data}/dst.json: 1 sound record, 3 faults"
    assert all(line.startswith(f"{data}/dst.json[1]: ") for line in lines[1:4])
    assert main(["inspect", str(data / "dst.json")]) == 2
    assert "dst.json[1]: turn 5: 'content' is empty" in error(capsys)
