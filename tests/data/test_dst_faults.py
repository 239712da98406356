"""Every fault of rows of the DST extension at once, and telling rows from records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proassist_lit.data.records import record_to_json, scan
from proassist_lit.data.sources.dst import check_row, is_dst_row, row_to_conversation
from proassist_lit.report.data_files import read_data_file
from tests.data.dst_rows import EVENTS, FAULTS, row, sparse, with_turn
from tests.data.records import record


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_a_row_is_blamed_once(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row(), FAULTS[fault][0]]))
    _, (found,) = scan(path, check_row)
    assert str(found).startswith(f"{path}[1]: ")
    (tmp_path / "sound.json").write_text(json.dumps([row(), EVENTS]))
    assert read_data_file(tmp_path / "sound.json").faults == ()


def test_every_fault_of_every_row_is_listed(tmp_path: Path) -> None:
    bad = row(fps=0, frames_file=3)
    turns = bad["conversation"]
    turns[1]["content"] = [{"id": "S9", "transition": "start"}]
    turns[2]["role"] = "usr"
    turns[3] |= {"content": "", "speaking": 7}
    turns[5]["time"] = 1.0  # earlier than the turns before, of which turn 1 is told no more of
    turns[7]["start_frame"] = 40
    odd = sparse({"frame_idx": 30, "response": "a"}, {"frame_idx": 12, "dst": ["S1 begins"]})
    odd["dst"].append({"id": "S2", "name": ""})
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(raw) for raw in (row(), bad)]
    path.write_text("\n".join([*lines, "{", json.dumps(odd)]))
    found = [str(fault).removeprefix(f"{path}") for fault in read_data_file(path).faults]
    wanted = [
        ":2: turn 2: unknown role 'usr'",
        ":2: turn 3: 'content' is empty",
        ":2: turn 3: 'speaking' must be 0 or 1",
        ":2: turn 1: updates the unknown step 'S9'",
        ":2: turn 7: is at frame 40, past the end",
        ":2: turn 5: its time 1.0 s is before 5.2 s",
        ":2: 'frames_file' must be a string",
        ":2: 'fps' must be a finite number",
        ":3: not valid JSON",
        ":4: event 1: 'dst' holds 'S1 begins'",
        ":4: dst entry 2: the id 'S2' is that of an earlier",
        ":4: dst entry 2: 'name' is empty",
        ":4: event 0: is at frame 30, past the end",
    ]
    assert len(found) == len(wanted), found
    for text in wanted:
        assert sum(fault.startswith(text) for fault in found) == 1, (text, found)


def test_empty_words_of_a_file_are_no_fault_where_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(with_turn(5, content="")))
    assert len(read_data_file(path).faults) == 1
    assert read_data_file(path, as_released=True).faults == ()


@pytest.mark.parametrize(
    ("raw", "is_row"),
    [
        (row(), True),
        (EVENTS, True),
        (row(dst=None), True),
        (row(conversation=[{"role": "DST_UPDATE"}]), True),
        (row(conversation=[]), True),  # it has steps
        (sparse(dst=None), True),
        (row(conversation=None, dst=None), False),
        (record(), False),
        (record(conversation=[]), False),
        (record(dst="kept in extra"), False),
        (record(conversation=[{"role": "DST_UPDATE"}, {"role": "frames"}]), False),
        ([], False),
        ("events", False),
        ({"conversation": "start_frame"}, False),
        ({"conversation": [3]}, False),
    ],
)
def test_rows_are_told_from_records_by_what_they_hold(raw: object, is_row: bool) -> None:
    assert is_dst_row(raw) is is_row


def test_converted_rows_are_records_and_no_rows() -> None:
    assert not is_dst_row(record_to_json(row_to_conversation(row(), "x")))
    assert not is_dst_row(record_to_json(row_to_conversation(EVENTS, "x")))
