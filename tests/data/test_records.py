"""Records are read whole and written back as they were."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.data.conversation import AssistantTurn, DstTurn, FramesTurn
from proassist_lit.data.records import parse_record, read_records, record_to_json, write_records
from proassist_lit.errors import RecordError
from proassist_lit.types import StepState, Transition, Update
from tests.data.records import DATA_DIR, record, with_turn


def test_parse_record_builds_every_kind_of_turn() -> None:
    made = parse_record(record(), where="x.jsonl:1")
    kinds = [type(turn).__name__.removesuffix("Turn") for turn in made.turns]
    assert kinds == ["System", "Frames", "User", "Frames", "Dst", "Assistant", "Frames"]
    dst, assistant = made.turns[4], made.turns[5]
    assert isinstance(dst, DstTurn)
    assert dst.updates == (Update("S1", Transition.START),)
    assert isinstance(assistant, AssistantTurn)
    assert (assistant.content, assistant.time_s) == ("Cut the carrot.", 2.5)
    assert (assistant.labels, assistant.progress) == ("initiative|instruction", "Nothing yet.")
    assert assistant.keywords == ("cut", "carrot")
    assert made.num_frames == 9
    assert made.fps == 2
    assert made.initial_state == {"S1": StepState.NOT_STARTED, "S2": StepState.COMPLETED}
    assert [step.name for step in made.steps] == ["cut the carrot", "stir"]
    assert made.source == "x.jsonl:1"


@pytest.mark.parametrize(
    "raw",
    [
        record(),
        record(
            steps=[], initial_state={}, conversation=[{"role": "frames", "start": 3, "end": 12}]
        ),
        with_turn(1, supervised=False),
        with_turn(1, supervised=True),
        with_turn(1, supervised=None),
        with_turn(5, keywords=[], labels=None, progress=None),
        with_turn(5, time=None, labels="", progress=""),
        with_turn(2, time=2, keywords=["kept", "in extra"]),
        with_turn(0, time=0.0, labels=["any", 1]),
        record() | {"metadata": None},  # as ProAssist's preparation of narrations
    ],
)
def test_record_to_json_is_lossless(raw) -> None:
    before = copy.deepcopy(raw)
    again = record_to_json(parse_record(raw, where="x"))
    assert again == before
    assert raw == before  # the reader does not touch what it is given
    assert parse_record(again, where="x") == parse_record(raw, where="x")


def test_json_file_holds_a_list_or_one_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record(), indent=1))
    assert [c.source for c in read_records(path)] == [f"{path}:1"]
    path.write_text(json.dumps([record(), record(clip_idx=1), record(fps=0)], indent=1))
    with pytest.raises(RecordError, match=r"a\.json\[2\]: 'fps'"):
        read_records(path)


def test_frames_are_supervised_unless_the_record_says_no() -> None:
    for said, supervised in ((True, True), (None, True), (False, False), (..., True)):
        frames = parse_record(with_turn(1, supervised=said), where="x").turns[1]
        assert isinstance(frames, FramesTurn)
        assert frames.supervised is supervised


@pytest.mark.parametrize("name", ["new/folder/a.jsonl", "a.json"])
def test_write_records_reads_back_equal(name: str, tmp_path: Path) -> None:
    texts = ["a\u2028b\u0085c", "caf\u00e9 \U0001f955", 'tab\tand \\ and "quotes"\n']
    raws = [record(clip_idx=i) for i in range(3)]
    for raw, text in zip(raws, texts, strict=True):
        raw["conversation"][5]["content"] = text
        raw["metadata"]["half"] = "\ud83d"  # only said text must be whole
    made = [parse_record(raw, where="x") for raw in raws]
    path = tmp_path / name
    write_records(path, made)
    again = read_records(path)
    assert [replace(c, source="x") for c in again] == made
    assert [record_to_json(c) for c in again] == raws
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def test_write_records_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = parse_record(record(), where="x")
    write_records(path, [good])
    before = path.read_bytes()

    def breaks():
        yield good
        raise KeyError("the generator broke")

    with pytest.raises(KeyError):
        write_records(path, breaks())
    for metadata, message in [
        ({"x": float("nan")}, r"record 1 \(video 'v1'\): cannot be written as JSON.*Keep only"),
        ({"x": object()}, r"record 1 \(video 'v1'\): cannot be written as JSON"),
    ]:
        with pytest.raises(RecordError, match=message):
            write_records(path, [good, replace(good, metadata=metadata)])
    with pytest.raises(RecordError, match=r"record 0 \(video 'v1'\): 'fps' must be"):
        write_records(path, [replace(good, fps=0.0)])
    with pytest.raises(RecordError, match=r"no records to write; give at least one"):
        write_records(path, [])
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", ["file/a.jsonl", "folder.jsonl"])
def test_write_records_that_cannot_write_leaves_nothing_behind(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(RecordError, match=r"cannot be written: .*Check the folder"):
        write_records(tmp_path / place, [parse_record(record(), where="x")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.jsonl"]


@pytest.mark.skipif(
    not (DATA_DIR / "proassist").is_dir(), reason=f"no genuine rows in {DATA_DIR / 'proassist'}"
)
def test_genuine_proassist_rows_round_trip(tmp_path: Path) -> None:
    path = DATA_DIR / "proassist" / "dialog_sample.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    made = read_records(path)
    assert [record_to_json(conversation) for conversation in made] == rows
    assert len({conversation.id for conversation in made}) == len(rows) == 6
    write_records(tmp_path / "copy.jsonl", made)
    copied = (tmp_path / "copy.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in copied] == rows
