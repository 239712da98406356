"""Rows of the DST extension are written back as they were, and with what was changed."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.data.conversation import AssistantTurn, UserTurn
from proassist_lit.data.records import read_records, write_records
from proassist_lit.data.sources.dst import conversation_to_row, read_dst_rows, row_to_conversation
from proassist_lit.errors import RecordError
from tests.data.dst_rows import EVENTS, row, same, sparse, told, with_turn

SHARED = Path(__file__).parents[3] / "shared"
DATA_DIR = Path(os.environ.get("PROASSIST_DATA_DIR", SHARED / "data"))
PARITY_DIR = Path(os.environ.get("PROASSIST_PARITY_DIR", SHARED / "parity"))

ROUND_TRIPS = {
    "turns": row(),
    "events": EVENTS,
    "no turns": row(conversation=[]),
    "no events": sparse(),
    "null conversation": {**EVENTS, "conversation": None},
    "events beside turns": row(events=[{"any": 1}]),
    "own metadata": row(metadata={"user_type": "talk_some", "source": "mine"}),
    "odd metadata": row(metadata=[1]),
    "both spans": row(start_frame=0, end_frame=31),
    "both spans, one in floats": row(start_frame=10.0, end_frame=30.0),
    "numbers": row(fps=2.0, quality=3, clip_idx=0),
    "empty dst": row(dst=[]),
    "string of updates": with_turn(6, content=" S1 -> complete ;S2->start;"),
    "extra keys of updates": with_turn(6, content=[{"id": "S1", "transition": "start", "x": None}]),
    "nulls": with_turn(3, time=None, labels=None, progress=None, keywords=[], speaking=None),
    "everything": with_turn(
        3, labels="", progress="p", keywords=["k"], speaking=1, dst_update=True
    ),
    "odd labels": with_turn(2, labels=["a"], keywords=3, progress={}),
    "states": with_turn(5, dst_state={"S9": "odd"}, end_frame="soon"),
    "system without frame": with_turn(0, start_frame=...),
    "own keys": with_turn(3, source_turn=9, role_="r", start=3),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_rows_round_trip(name: str, tmp_path: Path) -> None:
    raw = copy.deepcopy(ROUND_TRIPS[name])
    made = row_to_conversation(raw, "x")
    assert same(raw, ROUND_TRIPS[name])  # the reader does not touch what it is given
    assert same(conversation_to_row(made), raw)
    # also by way of our own file
    write_records(tmp_path / "own.jsonl", [made])
    (again,) = read_records(tmp_path / "own.jsonl")
    assert same(conversation_to_row(again), raw)
    assert replace(again, source="x") == made


def test_changes_are_written_back() -> None:
    made = row_to_conversation(EVENTS, "x")
    turns = [
        replace(t, content="Cut!") if isinstance(t, AssistantTurn) and t.content == "A" else t
        for t in made.turns
    ]
    back = conversation_to_row(replace(made, turns=tuple(turns), fps=4, clip_idx=7))
    assert back["events"][0] == {**EVENTS["events"][0], "response": "Cut!"}
    assert (back["fps"], back["clip_idx"]) == (4, 7)
    assert back["events"][1:] == EVENTS["events"][1:]


def test_other_conversations_cannot_be_written_as_rows() -> None:
    made = row_to_conversation(row(), "a.json[3]")
    with pytest.raises(RecordError, match=r"^a\.json\[3\]: was not made of a row .*write_records"):
        conversation_to_row(replace(made, metadata={}))
    added = (*made.turns, UserTurn(content="more"))
    with pytest.raises(RecordError, match=r"^a\.json\[3\]: turn 13 was not in the row .*write_rec"):
        conversation_to_row(replace(made, turns=added))
    with pytest.raises(
        RecordError, match=r"0 turns are left of turn 7 of the row, which made 1; o"
    ):
        conversation_to_row(replace(made, turns=made.turns[:-2]))


@pytest.mark.skipif(
    not (DATA_DIR / "proassist").is_dir(), reason=f"no genuine rows in {DATA_DIR / 'proassist'}"
)
def test_genuine_row_round_trips(tmp_path: Path) -> None:
    path = DATA_DIR / "proassist" / "dst_sample.json"
    raw = json.loads(path.read_text())
    (made,) = read_dst_rows(path)
    assert same(conversation_to_row(made), raw)
    write_records(tmp_path / "own.jsonl", [made])
    assert same(conversation_to_row(read_records(tmp_path / "own.jsonl")[0]), raw)
    assert made.frames_file.startswith("frames/nusar-")
    assert (made.start_frame_idx, made.end_frame_idx) == (193, 451)
    assert told(made)[0].startswith("S You are")
    assert told(made)[1].startswith("U I want")
    assert told(made)[2:4] == ["193-194", "S1->start"]
    assert told(made)[-2:] == ["S6->complete", "450-451"]


@pytest.mark.skipif(
    not (PARITY_DIR / "dst.json").is_file(), reason=f"no reference rows in {PARITY_DIR}"
)
def test_rows_of_the_reference_round_trip() -> None:
    sequences = json.loads((PARITY_DIR / "dst.json").read_text())["sequences"]
    assert sequences
    for i, sequence in enumerate(sequences):
        raw = sequence["sample"]
        made = row_to_conversation(raw, f"dst.json[{i}]", as_released=True)
        assert same(conversation_to_row(made), raw)
        assert made.num_frames == raw["end_frame"] - raw["start_frame"]
        said = [t["content"] for t in raw["conversation"] if t["role"] == "assistant"]
        assert sorted(t.content for t in made.turns if isinstance(t, AssistantTurn)) == sorted(said)
