"""What is wrong with a record is told with file, line, turn and remedy."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proassist_lit.data.conversation import FramesTurn
from proassist_lit.data.records import parse_record, read_records, record_to_json, scan
from proassist_lit.errors import RecordError
from proassist_lit.report.data_files import read_data_file
from tests.data.mutations import _mutate, _same
from tests.data.records import record, with_turn


def with_frames(*spans: tuple[int, int]) -> dict:
    turns = [{"role": "frames", "start": start, "end": end} for start, end in spans]
    return record(conversation=turns)


# What is wrong, and what the message must say besides file and line. A turn's index is named.
FAULTS = {
    "not an object": ([], r"expected a JSON object .* got \[\]"),
    "missing key": (record(fps=None), r"the key 'fps' is missing; add it"),
    "missing conversation": (record(conversation=None), r"'conversation' is missing; add it"),
    "missing metadata": (record(metadata=None), r"'metadata' is missing; add it, with an object"),
    "text is a number": (record(video_uid=7), r"'video_uid' must be a string, got 7; correct"),
    "text is empty": (record(dataset=" "), r"'dataset' is empty; write"),
    "index is true": (record(clip_idx=True), r"'clip_idx' must be an integer, got True"),
    "index is a float": (record(clip_idx=1.0), r"'clip_idx' must be an integer, got 1.0"),
    "index is negative": (record(clip_idx=-1), r"'clip_idx' must be from 0 .* got -1; correct"),
    "index is huge": (record(clip_idx=2**40), r"'clip_idx' must be from 0 to \d+, got 1099"),
    "no tokens": (record(num_tokens_per_img=0), r"'num_tokens_per_img' must be from 1 .* got 0"),
    "fps zero": (record(fps=0), r"'fps' must be a finite number > 0, got 0; correct"),
    "fps negative": (record(fps=-2.0), r"'fps' must be a finite number > 0, got -2.0"),
    "fps true": (record(fps=True), r"'fps' must be a number, got True"),
    "fps text": (record(fps="2"), r"'fps' must be a number, got '2'"),
    "fps beyond floats": (record(fps=10**400), r"'fps' must be a finite number > 0"),
    "conversation no list": (record(conversation={"a": 1}), r"'conversation' must be a list"),
    "metadata no object": (record(metadata=[1]), r"'metadata' must be an object, got \[1\]"),
    "turn no object": (record(conversation=["hi"]), r"turn 0: expected a JSON object .* 'hi'"),
    "no role": (with_turn(2, role=...), r"turn 2: the key 'role' is missing"),
    "role a list": (with_turn(2, role=[]), r"turn 2: 'role' must be a string, got \[\]"),
    "unknown role": (with_turn(5, role="asistant"), r"turn 5: unknown role 'asistant'; did you mea"
                     r"n 'assistant'\?"),
    "role of the DST rows": (with_turn(4, role="DST_UPDATE"), r"turn 4: .* did you mean 'dst'\?"),
    "role in capitals": (with_turn(2, role="USER"), r"turn 2: .* did you mean 'user'\?"),
    "no content": (with_turn(5, content=...), r"turn 5: the key 'content' is missing"),
    "content empty": (with_turn(5, content=""), r"turn 5: 'content' is empty; write its text"),
    "content blank": (with_turn(0, content=" \n"), r"turn 0: 'content' is empty"),
    "content null": (with_turn(2, content=None), r"turn 2: 'content' must be a string, got None"),
    "content half a character": (with_turn(2, content="\ud83d"), r"turn 2: .* surrogate pair"),
    "time negative": (with_turn(2, time=-0.1), r"turn 2: 'time' must be a finite number >= 0"),
    "time true": (with_turn(2, time=False), r"turn 2: 'time' must be a number, got False"),
    "time NaN": (with_turn(2, time=float("nan")), r"turn 2: 'time' must be a finite .* got nan"),
    "time goes back": (with_turn(5, time=2.3), r"turn 5: its time 2.3 s is before .* 2.5 s; .*so"),
    "dst time goes back": (with_turn(4, time=1.0), r"turn 4: its time 1.0 s is before .* 2.4 s"),
    "labels a list": (with_turn(5, labels=["a"]), r"turn 5: 'labels' must be a string, got \['a"),
    "keywords a string": (with_turn(5, keywords="cut"), r"turn 5: 'keywords' must be a list, got"),
    "keyword a number": (with_turn(5, keywords=["cut", 3]), r"turn 5: 'keywords' must be a list"),
    "keyword empty": (with_turn(5, keywords=[""]), r"turn 5: 'keywords' must be a list of"),
    "frame index a float": (with_turn(1, start=3.0), r"turn 1: 'start' must be an integer, got 3"),
    "frame index true": (with_frames((3, 4), (True, 12)), r"turn 1: 'start' must be an integer"),
    "frames supervised in words": (
        with_turn(1, supervised="no"), r"turn 1: 'supervised' must be true or false, got 'no'"
    ),
    "frames supervised in numbers": (with_turn(1, supervised=1), r"must be true or false, got 1"),
    "frames without end": (with_turn(1, end=...), r"turn 1: the key 'end' is missing"),
    "frames empty": (with_turn(1, end=3), r"turn 1: an empty frames turn: start 3, end 3 .*remove"),
    "frames reversed": (with_turn(1, start=5, end=3), r"turn 1: an empty frames turn: start 5"),
    "frames overlap": (with_frames((3, 7), (6, 12)), r"turn 1: frames 6 to 12 .*overlap.* is 7;"),
    "frames go back": (with_frames((3, 7), (4, 5), (5, 12)), r"turn 1: .* go back: .* is 7; start"),
    "frames out of order": (with_frames((7, 12), (3, 7)), r"turn 0: .* leave a gap: .* is 3; s"),
    "frames with a gap": (with_frames((3, 7), (8, 12)), r"turn 1: .* leave a gap: .* is 7; start"),
    "frames before the start": (with_frames((2, 12)), r"turn 0: .*outside .* 3 \.\. .* 12; .*abs"),
    "frames after the end": (with_frames((3, 13)), r"turn 0: .* reach outside the record's"),
    "frames stop early": (with_frames((3, 11)), r"end at 11 but 'end_frame_idx' is 12; make"),
    "no frames": (record(conversation=[{"role": "user", "content": "a"}]), r"no frames at all; a"),
    "no turns": (record(conversation=[]), r"no frames at all; add a turn with role 'frames'"),
    "updates missing": (with_turn(4, updates=...), r"turn 4: the key 'updates' is missing"),
    "updates empty": (with_turn(4, updates=[]), r"turn 4: 'updates' is empty; list"),
    "update no object": (with_turn(4, updates=["S1"]), r"turn 4: update: expected a JSON object"),
    "unknown transition": (with_turn(4, updates=[{"id": "S1", "transition": "begin"}]), r"turn 4: "
                           r"update: unknown transition 'begin'; did you mean '.*'\? Known: start"),
    "unknown step": (with_turn(4, updates=[{"id": "S9", "transition": "start"}]), r"turn 4: update:"
                     r" unknown step 'S9'; known: S1, S2\. Correct"),
    "update key unknown": (with_turn(4, updates=[{"id": "S1", "transition": "start", "x": 1}]),
                           r"turn 4: update: unknown key 'x'; remove"),
    "dst before frames": (record(conversation=[record()["conversation"][4], {"role": "frames",
                          "start": 3, "end": 12}]), r"turn 0: a dst turn stands before any frame"),
    "dst without steps": (record(steps=None, initial_state=None), r"turn 4: update: updates the ste"
                          r"p 'S1' but the record lists no steps; add"),
    "state without steps": (with_frames((3, 12)) | {"steps": []}, r"'initial_state' is given with"),
    "steps without state": (record(initial_state=None), r"the key 'initial_state' is missing; add"),
    "state lacks a step": (record(initial_state={"S1": "completed"}), r"initial_state: the key 'S"),
    "state of no step": (record(initial_state=record()["initial_state"] | {"S3": "completed"}),
                         r"initial_state: unknown step 'S3'; add"),
    "unknown state": (record(initial_state={"S1": "done", "S2": "completed"}), r"initial_state: .*"
                      r"unknown S1 'done'; did you mean .*Known: not_started, in_progress, comp"),
    "duplicate step": (record(steps=[{"id": "S1", "name": "a"}, {"id": "S1", "name": "b"}]),
                       r"step 1: the id 'S1' is that of an earlier step; number"),
    "step id unreadable": (record(steps=[{"id": "S1->x", "name": "a"}]), r"step 0: the id 'S1->x' m"
                           r"ust be letters and digits, 32 at most; call it S1"),
    "step id long": (record(steps=[{"id": "S" * 33, "name": "a"}]), r"step 0: the id .*32 at most"),
    "step without name": (record(steps=[{"id": "S1", "name": ""}]), r"step 0: 'name' is empty"),
    "step key unknown": (record(steps=[{"id": "S1", "name": "a", "n": 1}]), r"unknown key 'n'"),
    "steps no list": (record(steps="S1"), r"'steps' must be a list, got 'S1'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_record_error_names_file_line_turn_and_remedy(fault: str, tmp_path: Path) -> None:
    raw, message = FAULTS[fault]
    with pytest.raises(RecordError, match=rf"(?s)^train\.jsonl:2: .*{message}"):
        parse_record(raw, where="train.jsonl:2")
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(record()) + "\n" + json.dumps(raw) + "\n")
    with pytest.raises(RecordError, match=r"train\.jsonl:2: "):
        read_records(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_a_file_is_blamed_once(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(FAULTS[fault][0]))
    assert len(read_data_file(path).faults) == 1, read_data_file(path).faults


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', r"not valid JSON: .*char"),
        (b"[1, 2]", r"expected a JSON object"),
        (b"null", r"expected a JSON object .* got None"),
        (b'{"fps": NaN}', r"not valid JSON: NaN is not a JSON number"),
        (b'{"metadata": {"deep": [1e999]}}', r"not valid JSON: the number 1e999 is too large"),
        (b'{"fps": 1, "fps": 2}', r"not valid JSON: the key 'fps' is given twice"),
        (b'{"dataset": "\xff"}', r"not valid JSON: .*utf-8"),
        (b"[" * 100_000, r"not valid JSON: .*recursion"),
        (b'{"fps": ' + b"1" * 5000 + b"}", r"not valid JSON: .*digits"),
    ],
)
def test_unreadable_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = json.dumps(record()).encode()
    path.write_bytes(good + b"\n\n" + line + b"\n" + good)
    with pytest.raises(RecordError, match=rf"(?s)train\.jsonl:3: {message}"):
        read_records(path)
    assert len(read_data_file(path).faults) >= 1
    assert all("train.jsonl:3" in str(fault) for fault in read_data_file(path).faults)


def test_a_record_too_deep_to_be_checked_is_a_fault_like_any_other(tmp_path: Path) -> None:
    def check(raw: dict, where: str):
        if raw["clip_idx"] == 1:  # as deep as JSON can be, and no deeper
            raise RecursionError
        return parse_record(raw, where=where)

    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record(clip_idx=i)) + "\n" for i in range(3)))
    first, fault, last = scan(path, check)
    assert [first.clip_idx, last.clip_idx] == [0, 2]
    assert re.search(r"train\.jsonl:2: holds .* nested too deeply; flatten", str(fault[0]))


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RecordError, match=r"holds no records; write"):
        read_records(tmp_path / name)


def test_empty_list_and_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(RecordError, match=r"a\.json: holds no records; write"):
        read_records(tmp_path / "a.json")
    with pytest.raises(RecordError, match=r"nowhere\.jsonl: cannot be read: No such file.*Check"):
        read_records(tmp_path / "nowhere.jsonl")
    with pytest.raises(RecordError, match=r"cannot be read: Is a directory"):
        read_records(tmp_path)


def test_every_fault_of_every_line_is_listed(tmp_path: Path) -> None:
    bad = with_turn(5, content="", time=0.5)
    bad["fps"] = -1
    bad["conversation"][2]["role"] = "usr"
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(record()), json.dumps(bad), "{", json.dumps(record(clip_idx="0"))]
    path.write_text("\n".join(lines))
    faults = [str(fault) for fault in read_data_file(path).faults]
    wanted = [
        (":2: ", "'fps'"),
        (":2: turn 2: ", "unknown role"),
        (":2: turn 5: ", "its time"),
        (":2: turn 5: ", "'content' is empty"),
        (":3: ", "not valid JSON"),
        (":4: ", "'clip_idx'"),
    ]
    assert len(faults) == len(wanted)
    for place, text in wanted:
        assert any(place in fault and text in fault for fault in faults), (place, text, faults)
    path.write_text(lines[0])
    assert read_data_file(path).faults == ()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_any_mutation_is_read_or_refused_with_file_and_line(data: st.DataObject) -> None:
    raw: object = record()
    for _ in range(data.draw(st.integers(1, 3))):
        raw = _mutate(data, raw)
    before = copy.deepcopy(raw)
    message = ""
    try:
        made = parse_record(raw, where="train.jsonl:17")
    except RecordError as fault:
        message = str(fault)
    if message:
        assert message.startswith("train.jsonl:17: ")
        assert "\n" not in message
        assert len(message) < 600
    else:
        assert sum(len(t) for t in made.turns if isinstance(t, FramesTurn)) == made.num_frames
        assert _same(record_to_json(made), before)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_any_bytes_are_read_or_refused_with_file_and_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = bytearray(json.dumps(record()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(line)))
        stop = start + data.draw(st.integers(0, 4))
        line[start:stop] = data.draw(st.binary(max_size=3)).replace(b"\n", b" ")
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(json.dumps(record()).encode() + b"\n" + bytes(line))
    faults = read_data_file(path).faults
    assert all("fuzz.jsonl:2: " in str(fault) for fault in faults)
    if not faults:
        assert len(read_records(path)) == 2
