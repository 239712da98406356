"""What is wrong with a row of the DST extension is told with file, row, turn and remedy."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proassist_lit.data.conversation import AssistantTurn, FramesTurn
from proassist_lit.data.sources.dst import (
    conversation_to_row,
    read_dst,
    read_dst_rows,
    row_to_conversation,
)
from proassist_lit.errors import RecordError
from tests.data.dst_rows import EVENTS, FAULTS, row, same, with_turn
from tests.data.mutations import _mutate


def test_empty_words_are_refused_unless_allowed(tmp_path: Path) -> None:
    turns, events = with_turn(5, content=""), copy.deepcopy(EVENTS)
    events["events"][0]["response"] = None
    for raw, place in ((turns, "turn 5: 'content' is empty"), (events, "event 0: .*'response'")):
        with pytest.raises(RecordError, match=rf"^a:1: {place}"):
            row_to_conversation(raw, "a:1")
        made = row_to_conversation(raw, "a:1", as_released=True)
        assert [t.content for t in made.turns if isinstance(t, AssistantTurn)].count("") == 1
        assert same(conversation_to_row(made), raw)
    (tmp_path / "a.json").write_text(json.dumps(turns))
    with pytest.raises(RecordError, match=r"a\.json:1: turn 5: 'content' is empty"):
        read_dst_rows(tmp_path / "a.json")
    assert len(read_dst_rows(tmp_path / "a.json", as_released=True)) == 1
    with pytest.raises(RecordError, match=r"turn 2: 'content' is empty"):
        row_to_conversation(with_turn(2, content=" "), "x", as_released=True)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_row_turn_and_remedy(fault: str, tmp_path: Path) -> None:
    raw, message = FAULTS[fault]
    with pytest.raises(RecordError, match=rf"^train\.json\[4\]: .*{message}"):
        row_to_conversation(raw, "train.json[4]")
    (tmp_path / "train.json").write_text(json.dumps([row(), raw]))
    with pytest.raises(RecordError, match=r"train\.json\[1\]: "):
        read_dst_rows(tmp_path / "train.json")
    (tmp_path / "train.jsonl").write_text(json.dumps(row()) + "\n\n" + json.dumps(raw))
    with pytest.raises(RecordError, match=r"train\.jsonl:3: "):
        read_dst_rows(tmp_path / "train.jsonl")


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(RecordError, match=r"a\.json: cannot be read: No such file.*Check the path"):
        read_dst_rows(path)
    path.write_text("[]")
    with pytest.raises(RecordError, match=r"a\.json: holds no records; write one"):
        read_dst_rows(path)
    path.write_text('[{"fps": 1}, {"fps": NaN}]')
    with pytest.raises(RecordError, match=r"a\.json:1: not valid JSON: NaN"):
        read_dst_rows(path)
    with pytest.raises(RecordError, match=r"no file fits '\*/\*\.json' .*; give the folder"):
        read_dst(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(json.dumps([row(video_uid=name)] * 2))
    assert [c.video_uid for c in read_dst(tmp_path)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("odd", ["x" * 500, "a\nb", "\ud800"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("id of a step", "turn 1: updates the unknown step 'S1'; known: "),
        ("id of two steps", "dst entry 1: the id "),
        ("id of an update", "turn 1: updates the unknown step "),
        ("name of a state", "turn 1: dst_state: unknown state 'odd' of the step "),
        ("state", "turn 1: dst_state: unknown state "),
        ("unknown step of a state", "turn 1: dst_state: unknown step "),
        ("video", "video "),
    ],
)
def test_messages_stay_short_whatever_they_quote(place: str, message: str, odd: str) -> None:
    raw = with_turn(1, dst_state={"S1": odd} if place == "state" else {"S1": "not_started"})
    if place == "id of a step":
        raw["dst"][0]["id"] = odd
    elif place == "id of two steps":
        raw["dst"][0]["id"] = raw["dst"][1]["id"] = odd
    elif place == "id of an update":
        raw["conversation"][1]["content"] = [{"id": odd, "transition": "start"}]
    elif place == "name of a state":
        del raw["dst"]
        raw["conversation"][1]["dst_state"] = {odd: "odd"}
    elif place == "unknown step of a state":
        raw["conversation"][1]["dst_state"] = {odd: "completed"}
    elif place == "video":
        raw |= {"dataset": "assembly101", "video_uid": odd}
    with pytest.raises(RecordError) as caught:
        row_to_conversation(raw, "train.json[17]")
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 350
    if "\ud800" not in odd:  # else refused earlier: no tokenizer reads it
        assert said.startswith(f"train.json[17]: {message}")


@pytest.mark.road
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_any_mutation_is_read_or_refused_with_file_and_row(data: st.DataObject) -> None:
    raw: object = copy.deepcopy(data.draw(st.sampled_from([row(), EVENTS])))
    for _ in range(data.draw(st.integers(1, 3))):
        raw = _mutate(data, raw)
    before = json.dumps(raw, sort_keys=True)
    message = ""
    try:
        made = row_to_conversation(raw, "train.json[17]", as_released=data.draw(st.booleans()))
    except RecordError as fault:
        message = str(fault)
    assert json.dumps(raw, sort_keys=True) == before
    if message:
        assert message.startswith("train.json[17]: ")
        assert "\n" not in message
        assert len(message) < 600
    else:
        assert sum(len(t) for t in made.turns if isinstance(t, FramesTurn)) == made.num_frames
        assert json.dumps(conversation_to_row(made), sort_keys=True) == before
