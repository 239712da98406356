import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.data.dataset import load_data
from proassist_lit.data.records import read_records, write_records
from proassist_lit.data.sources.dst import (
    conversation_to_row,
    read_dst,
    read_dst_rows,
    row_to_conversation,
)
from proassist_lit.errors import ConfigError, FeatureError, RecordError
from tests.data import test_arrow_features, test_frames
from tests.data.mutations import _mutate

SHARED = Path(__file__).parents[3] / "shared"
DATA_DIR = Path(os.environ.get("PROASSIST_DATA_DIR", SHARED / "data"))
PARITY_DIR = Path(os.environ.get("PROASSIST_PARITY_DIR", SHARED / "parity"))


def row(**changes) -> dict:
    """A valid row with turns; ``None`` removes a key."""
    made = {
        "video_uid": "v1",
        "dataset": "wtag",
        "clip_idx": 1,
        "fps": 2,
        "num_tokens_per_img": 1,
        "frames_file": "data/wtag/frames/v1.arrow",
        "start_frame_idx": 10,
        "end_frame_idx": 30,
        "inferred_goal": "Making soup",
        "inferred_knowledge": "Making soup\n1. Cut.",
        "video_labels": {},
        "quality": 3.5,
        "seq_len": 818,
        "max_seq_len": 4096,
        "dst": [
            {"type": "step", "id": "S1", "start_ts": 5.2, "end_ts": 9.0, "name": "Cut."},
            {"type": "step", "id": "S2", "name": "Stir."},
        ],
        "conversation": [
            {"role": "system", "content": "Help.", "start_frame": 0, "end_frame": 1},
            {
                "role": "DST_UPDATE",
                "content": [{"id": "S1", "transition": "start"}],
                "time": 5.2,
                "start_frame": 10,
                "end_frame": 12,
                "dst_state": {"S1": "not_started"},
                "labels": "initiative|dst_update",
            },
            {"role": "user", "content": "Soup?", "time": 5.2, "start_frame": 10, "end_frame": 12},
            {"role": "assistant", "content": "Cut.", "time": 5.4, "start_frame": 10, "labels": "x"},
            {"role": "system", "content": "Now loud.", "start_frame": 14},
            {"role": "assistant", "content": "Stir.", "start_frame": 17, "speaking": 0},
            {"role": "DST_UPDATE", "content": "S1->complete; S2->start", "start_frame": 17},
            {"role": "user", "content": "Thanks.", "start_frame": 29, "end_frame": 31},
        ],
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def with_turn(i: int, **changes) -> dict:
    """The valid row with turn ``i`` changed; ``...`` removes a key."""
    made = row()
    turn = {**made["conversation"][i], **changes}
    made["conversation"][i] = {key: value for key, value in turn.items() if value is not ...}
    return made


def sparse(*events, **changes) -> dict:
    return row(conversation=None, events=list(events), **changes)


EVENTS = sparse(
    {
        "frame_idx": 10,
        "speaking": 1,
        "dst_update": 1,
        "dst_updates": ["S1->start"],
        "response": "A",
    },
    {"frame": 12, "speaking": 0, "dst_update": 1, "dst": [{"id": "S1", "transition": "complete"}]},
    {"frame_idx": 12, "speaking": 1, "dst_update": 0, "dst_updates": [], "response": "Well done."},
    {"frame_idx": 13, "speaking": 0, "dst_update": 0, "dst_updates": [], "response": None},
    {"start_frame": 14, "role": "user", "content": "What now?"},
    {"frame_idx": 15, "dst": "S2->start", "response": "Stir.", "time": 7.5, "other": [1]},
    {"frame_idx": 16, "speaking": 0, "response": "unsaid"},
)


def same(a: object, b: object) -> bool:
    """Equal as JSON: 1, 1.0 and true differ."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def told(conversation: Conversation) -> list[str]:
    """The turns, one short text each."""
    out = []
    for turn in conversation.turns:
        match turn:
            case FramesTurn():
                out.append(f"{turn.start}-{turn.end}")
            case DstTurn():
                out.append(";".join(map(str, turn.updates)))
            case SystemTurn() | UserTurn() | AssistantTurn():
                out.append(f"{type(turn).__name__[0]} {turn.content}")
    return out


def test_turns_stand_where_they_are_fed() -> None:
    made = row_to_conversation(row(), "a.json[0]")
    assert told(made) == [
        *("S Help.", "U Soup?", "10-11", "S1->start", "A Cut."),
        *("11-14", "S Now loud.", "14-18", "S1->complete;S2->start", "A Stir."),
        *("18-29", "U Thanks.", "29-30"),
    ]
    assert (made.dataset, made.video_uid, made.clip_idx, made.fps) == ("wtag", "v1", 1, 2)
    assert (made.start_frame_idx, made.end_frame_idx) == (10, 30)
    assert [(step.id, step.name) for step in made.steps] == [("S1", "Cut."), ("S2", "Stir.")]
    assert made.source == "a.json[0]"
    assert made.frames_file == "frames/v1.arrow"


def test_flags_and_labels_of_turns_are_kept_beside_them() -> None:
    made = row_to_conversation(row(), "x")
    silent = next(t for t in made.turns if isinstance(t, AssistantTurn) and t.content == "Stir.")
    assert silent.extra["speaking"] == 0
    assert "dst_update" not in silent.extra
    spoken = next(t for t in made.turns if isinstance(t, AssistantTurn) and t.content == "Cut.")
    assert (spoken.labels, spoken.time_s) == ("x", 5.4)


def test_events_become_turns_and_other_frames_are_silent() -> None:
    made = row_to_conversation(EVENTS, "x")
    assert told(made) == [
        *("10-11", "S1->start", "A A", "11-13", "S1->complete", "A Well done."),
        *("13-14", "U What now?", "14-16", "S2->start", "A Stir.", "16-30"),
    ]
    dst, said = made.turns[1], made.turns[2]
    assert dst.extra["speaking"] == dst.extra["dst_update"] == said.extra["speaking"] == 1
    assert made.turns[10].time_s == 7.5


def test_initial_state_is_that_before_the_first_update() -> None:
    state = {"S1": "completed", "S2": "in_progress"}
    assert list(row_to_conversation(row(), "x").initial_state.values()) == ["not_started"] * 2
    given = row_to_conversation(with_turn(1, dst_state=state), "x")
    assert given.initial_state == state
    assert row_to_conversation(with_turn(0, dst_state=state), "x").initial_state == state
    late = with_turn(1, dst_state=...)  # the next state is the one after an update
    late["conversation"][2]["dst_state"] = state
    assert set(row_to_conversation(late, "x").initial_state.values()) == {"not_started"}


def test_rows_without_steps_or_other_keys_get_them() -> None:
    bare = {key: row()[key] for key in ("video_uid", "conversation")}
    bare |= {"start_frame": 10, "end_frame": 30}
    bare["conversation"][6]["content"] = "S10->start;S2->complete"
    made = row_to_conversation(bare, "x")
    assert [(s.id, s.name) for s in made.steps] == [("S1", "S1"), ("S2", "S2"), ("S10", "S10")]
    assert (made.dataset, made.fps, made.clip_idx) == ("dst", 2, 0)
    assert (made.start_frame_idx, made.end_frame_idx) == (10, 30)
    assert same(conversation_to_row(made), bare)
    talk = row(dst=None, conversation=[{"role": "assistant", "content": "a", "start_frame": 12}])
    assert row_to_conversation(talk, "x").steps == ()


def test_a_contradicting_update_is_no_fault_of_the_row() -> None:
    made = row_to_conversation(with_turn(6, content="S1->start"), "x")  # it was started before
    assert told(made).count("S1->start") == 2


def test_order_in_the_source_does_not_matter_but_is_kept() -> None:
    shuffled = row()
    shuffled["conversation"] = shuffled["conversation"][::-1]
    made = row_to_conversation(shuffled, "x")
    assert told(made) == told(row_to_conversation(row(), "x"))
    assert same(conversation_to_row(made), shuffled)


def test_times_at_one_frame_are_no_order() -> None:
    raw = with_turn(1, time=5.3)
    raw["conversation"][2]["time"] = 5.5  # the user, whose turn goes first
    made = row_to_conversation(raw, "x")
    assert made.turns[1].time_s == 5.5
    assert "time" not in made.turns[3].extra
    assert same(conversation_to_row(made), raw)


def test_frames_files_are_found_by_the_layout() -> None:
    def name(**changes) -> str:
        return row_to_conversation(row(**changes), "x").frames_file

    assert name(frames_file="frames/part/other.arrow") == "frames/part/other.arrow"
    assert name(frames_file=None) == "frames/v1.arrow"
    assert name(dataset="assembly101", video_uid="assembly_a_b") == "frames/a_b.arrow"
    assert name(dataset="ego4d", video_uid="assembly_a_b") == "frames/assembly_a_b.arrow"


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


def test_empty_words_are_refused_unless_allowed(tmp_path: Path) -> None:
    turns, events = with_turn(5, content=""), copy.deepcopy(EVENTS)
    events["events"][0]["response"] = None
    for raw, place in ((turns, "turn 5: 'content' is empty"), (events, "event 0: .*'response'")):
        with pytest.raises(RecordError, match=rf"^a:1: {place}"):
            row_to_conversation(raw, "a:1")
        made = row_to_conversation(raw, "a:1", allow_empty=True)
        assert [t.content for t in made.turns if isinstance(t, AssistantTurn)].count("") == 1
        assert same(conversation_to_row(made), raw)
    (tmp_path / "a.json").write_text(json.dumps(turns))
    with pytest.raises(RecordError, match=r"a\.json:1: turn 5: 'content' is empty"):
        read_dst_rows(tmp_path / "a.json")
    assert len(read_dst_rows(tmp_path / "a.json", allow_empty=True)) == 1
    with pytest.raises(RecordError, match=r"turn 2: 'content' is empty"):
        row_to_conversation(with_turn(2, content=" "), "x", allow_empty=True)


# What is wrong, and what the message must say besides the row. A turn's index is the source's.
FAULTS = {
    "no object": ([], r"expected a JSON object .* got \[\]"),
    "no turns": (row(conversation=None), r"the key 'conversation' is missing; add it"),
    "turns no list": (row(conversation="a"), r"'conversation' must be a list, got 'a'"),
    "events no list": (sparse() | {"events": 1}, r"'events' must be a list, got 1"),
    "no span": (row(end_frame_idx=None), r"the key 'end_frame' is missing; add it"),
    "empty span": (row(end_frame_idx=10), r"no frames: start_frame_idx 10, end_frame_idx 10 .*cor"),
    "no video": (row(video_uid=None), r"the key 'video_uid' is missing"),
    "short name": (row(dataset="assembly101"), r"'v1' of assembly101: the name has no '_'.*give"),
    "fps zero": (row(fps=0), r"'fps' must be a finite number > 0, got 0; correct"),
    "turn no object": (row(conversation=["a"]), r"turn 0: expected a JSON object"),
    "role unknown": (with_turn(1, role="DST"), r"turn 1: unknown role 'DST'; did you mean 'DST"),
    "role frames": (with_turn(1, role="frames"), r"turn 1: unknown role 'frames'"),
    "no content": (with_turn(3, content=...), r"turn 3: the key 'content' is missing"),
    "empty content": (with_turn(3, content=""), r"turn 3: 'content' is empty; write"),
    "no frame": (with_turn(3, start_frame=...), r"turn 3: the key 'start_frame' is missing; add"),
    "late system without": (with_turn(4, start_frame=...), r"turn 4: the key 'start_frame' is mi"),
    "frame a float": (with_turn(3, start_frame=1.5), r"turn 3: 'start_frame' must be an integer"),
    "past the end": (with_turn(7, start_frame=30), r"turn 7: is at frame 30, past the end: .* last "
                     r"frame is 29 \(end_frame_idx 30 is exclusive\)\. Correct"),
    "system past the end": (with_turn(4, start_frame=31), r"turn 4: is at frame 31, past the end"),
    "before the start": (with_turn(2, start_frame=9), r"turn 2: is at frame 9, before .* frame 10"),
    "times go back": (with_turn(5, time=5.0), r"turn 5: its time 5.0 s is before 5.4 s of an ea"),
    "time a text": (with_turn(3, time="5"), r"turn 3: 'time' must be a number, got '5'"),
    "labels a list": (with_turn(3, labels=["a"]), r"turn 3: 'labels' must be a string"),
    "flag 2": (with_turn(3, speaking=2), r"turn 3: 'speaking' must be 0 or 1, got 2; correct"),
    "flag a text": (with_turn(3, dst_update="1"), r"turn 3: 'dst_update' must be 0 or 1, got '1'"),
    "no updates": (with_turn(1, content=[]), r"turn 1: 'content' is empty; list what changed"),
    "updates a number": (with_turn(1, content=3), r"turn 1: 'content' must be a list, got 3"),
    "update a number": (with_turn(1, content=[3]), r"turn 1: update: expected a JSON object"),
    "unknown transition": (with_turn(1, content=[{"id": "S1", "transition": "begin"}]),
                           r"turn 1: update: unknown transition 'begin'; did you mean"),
    "update unreadable": (with_turn(6, content="S1 begins"), r"turn 6: 'content' holds 'S1 begins'"
                          r", which is no update; write each as 'S1->start'"),
    "update empty": (with_turn(6, content=["S1->start", " "]), r"turn 6: 'content' holds an empty"),
    "unknown step": (with_turn(6, content="S9->start"), r"turn 6: updates the unknown step 'S9'; kn"
                     r"own: \['S1', 'S2'\]\. Correct"),
    "step without name": (row(dst=[{"id": "S1"}]), r"dst entry 0: the key 'name' is missing"),
    "steps twice": (row(dst=[{"id": "S1", "name": "a"}] * 2), r"dst entry 1: the id 'S1' is that "),
    "steps no list": (row(dst="S1"), r"'dst' must be a list, got 'S1'"),
    "step id odd": (row(dst=[{"id": "S1.1", "name": "a"}], conversation=[]), r"step 0: the id 'S1.1"
                    r"' must be letters and digits"),
    "state unknown": (with_turn(1, dst_state={"S1": "done"}), r"turn 1: dst_state: unknown state"),
    "state of no step": (with_turn(1, dst_state={"S7": "completed"}), r"dst_state: unknown step "),
    "state no object": (with_turn(1, dst_state="S1"), r"turn 1: dst_state: expected a JSON object"),
    "event past the end": (sparse({"frame_idx": 30}), r"event 0: is at frame 30, past the end"),
    "event without frame": (sparse({"response": "a"}), r"event 0: the key 'frame_idx' is missing"),
    "event says nothing": (sparse({"frame": 12, "speaking": 1}), r"event 0: the key 'response' "),
    "event changes nothing": (sparse({"frame": 12, "dst_update": 1, "dst": []}),
                              r"event 0: .*'dst_updates' .*missing"),
    "event's step unknown": (sparse({"frame": 12, "dst": ["S9->start"]}), r"event 0: updates the "),
}  # fmt: skip


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
        made = row_to_conversation(raw, "train.json[17]", allow_empty=data.draw(st.booleans()))
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


# -- with features and pictures ----------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "wtag"
    folder.mkdir()
    for split, raw in (("train", row()), ("val", EVENTS), ("test", row(clip_idx=2))):
        (folder / f"{split}.json").write_text(json.dumps([raw]))
    features = folder / "features" / "enc" / "v1.arrow"
    test_arrow_features.write(features, test_arrow_features.grids(40))
    pictures = [test_frames.encoded(test_frames.picture(i % 25, (400, 200))) for i in range(40)]
    test_frames.write(folder / "frames" / "v1.arrow", pictures)
    return tmp_path


def config(root: Path, **changes) -> DataConfig:
    files = {f"{split}_files": f"*/{split}*.json*" for split in ("train", "val", "test")}
    return DataConfig(source="dst", root=str(root), encoder="enc", **files, **changes)


def test_rows_are_loaded_with_their_features(root: Path) -> None:
    sets = load_data(config(root, num_tokens_per_img=5))
    assert [len(sets[split]) for split in ("train", "val", "test")] == [1, 1, 1]
    assert sets["train"].check_features() == test_arrow_features.WIDTH
    (conversation,) = sets["val"]
    values = test_arrow_features.grids(40)
    want = torch.cat([values["cls"], values["2x2"]], dim=1)[10:30].float()
    assert torch.equal(sets["val"].features(conversation), want)
    (root / "wtag/features/enc/v1.arrow").unlink()
    with pytest.raises(
        FeatureError, match=r"train\.json\[0\]: feature file .*v1\.arrow does not e"
    ):
        sets["train"].check_features()
    with pytest.raises(ConfigError, match=r"data\.root is empty; name the folder"):
        DataConfig(source="dst")


def test_pictures_are_real_ones_and_no_run_depends_on_them(root: Path) -> None:
    data = load_data(config(root))["train"]
    (conversation,) = data
    pictures = data.frames(conversation, [10, 20])
    assert pictures is not None
    assert pictures.shape == (2, 96, 192, 3)
    assert np.abs(pictures[:, 50, 50, 0].astype(int) - [100, 200]).max() <= 3
    with pytest.warns(
        UserWarning, match=r"no pictures to show: .*train\.json\[0\]: asks for frames"
    ):
        assert data.frames(conversation, [10, 99]) is None
    (root / "wtag/frames/v1.arrow").unlink()
    assert data.frames(conversation, [10, 20]) is None


def test_prepared_rows_show_pictures_too(root: Path) -> None:
    record = {
        **{"dataset": "wtag", "video_uid": "v1", "clip_idx": 0, "frames_file": "frames/v1.arrow"},
        **{"fps": 2, "num_tokens_per_img": 1, "start_frame_idx": 3, "end_frame_idx": 9},
        **{"conversation": [{"role": "frames", "start": 3, "end": 9}], "metadata": {}},
    }
    for split in ("train", "val"):
        (root / f"{split}.jsonl").write_text(json.dumps(record))
    made = DataConfig(source="proassist", root=str(root), encoder="enc", test_files="")
    data = load_data(made)["val"]
    (conversation,) = data
    assert data.features(conversation).shape == (6, 1, test_arrow_features.WIDTH)
    pictures = data.frames(conversation, [3])
    assert pictures is not None
    assert pictures.shape == (1, 96, 192, 3)


# -- genuine rows ------------------------------------------------------------------------------


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
        made = row_to_conversation(raw, f"dst.json[{i}]", allow_empty=True)
        assert same(conversation_to_row(made), raw)
        assert made.num_frames == raw["end_frame"] - raw["start_frame"]
        said = [t["content"] for t in raw["conversation"] if t["role"] == "assistant"]
        assert sorted(t.content for t in made.turns if isinstance(t, AssistantTurn)) == sorted(said)
