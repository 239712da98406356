"""Rows of the extension's input style ``proassist``: turns at their very end, and early ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from proassist_lit.data.sources.dst import conversation_to_row, row_to_conversation
from proassist_lit.errors import RecordError
from tests.data.dst_rows import row, same, sparse, told

LAST = [
    {"role": "DST_UPDATE", "content": "S1->complete", "time": 15.2, "start_frame": 17,
     "end_frame": 30},
    {"role": "assistant", "content": "Well done.", "time": 15.2, "start_frame": 30,
     "end_frame": 30},
]  # fmt: skip
"""Both at one time: the second has no frame of its own."""

TURNS = row(conversation=[*row()["conversation"][:6], *LAST])
EVENTS = sparse(
    {"frame_idx": 12, "speaking": 0, "dst_update": 1, "dst_updates": ["S1->start"]},
    {"frame_idx": 30, "speaking": 1, "dst_update": 0, "dst_updates": [], "response": "Well done."},
    num_total_frames=21, num_event_frames=2,
)  # fmt: skip


@pytest.mark.parametrize("raw", [TURNS, EVENTS], ids=["turns", "events"])
def test_what_closes_a_row_happens_at_its_last_frame(raw: dict) -> None:
    made = row_to_conversation(raw, "x")
    assert told(made)[-2:] == ["18-30" if raw is TURNS else "13-30", "A Well done."]
    assert same(conversation_to_row(made), raw)


@pytest.mark.parametrize("raw", [TURNS, EVENTS], ids=["turns", "events"])
def test_by_the_rules_of_the_extension_it_is_passed_over(raw: dict) -> None:
    made = row_to_conversation(raw, "x", as_released=True)
    assert told(made)[-1] == ("18-30" if raw is TURNS else "13-30")
    assert "A Well done." not in told(made)
    assert same(conversation_to_row(made), raw)


@pytest.mark.parametrize(
    "raw",
    [
        row(conversation=[LAST[1] | {"end_frame": 31}]),
        row(conversation=[LAST[1] | {"start_frame": 31}]),
        sparse(*EVENTS["events"], num_total_frames=20),
    ],
    ids=["longer", "later", "frames counted as we do"],
)
@pytest.mark.parametrize("as_released", [False, True])
def test_other_turns_past_the_end_are_still_faults(raw: dict, as_released: bool) -> None:
    with pytest.raises(RecordError, match="past the end"):
        row_to_conversation(raw, "x", as_released=as_released)


def test_validate_warns_of_turns_far_from_their_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([row(), TURNS]))
    assert main(["validate", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: 2 records, no faults"
    assert lines[1].startswith(
        f"{path}: 1 of 6 turns with a time is more than 2 frames from it, first at {path}[1]: an "
        "update at frame 17, its time 15.2 s is frame 30.4. "
    )
    path.write_text(json.dumps([row()]))
    assert main(["validate", str(path)]) == 0
    assert "from it" not in capsys.readouterr().out
