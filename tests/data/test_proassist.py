import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.data.records import parse_record
from proassist_lit.data.sources.proassist import feature_file, frames_file, read_proassist
from proassist_lit.errors import RecordError
from proassist_lit.report.data_files import read_data_file
from proassist_lit.sequence.rules import OURS, PROASSIST, SequenceRules
from proassist_lit.sequence.script import read_script

DATA_DIR = Path(os.environ.get("PROASSIST_DATA_DIR", Path(__file__).parents[3] / "shared/data"))


def row(dataset: str = "wtag", video_uid: str = "T1", **changes) -> dict:
    return {
        "dataset": dataset,
        "video_uid": video_uid,
        "clip_idx": 0,
        "frames_file": frames_file(dataset, video_uid),
        "fps": 2,
        "num_tokens_per_img": 1,
        "start_frame_idx": 0,
        "end_frame_idx": 4,
        "conversation": [{"role": "frames", "start": 0, "end": 4}],
        "metadata": {},
        **changes,
    }


def write(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_read_proassist_reads_the_files_of_a_pattern_in_order(tmp_path: Path) -> None:
    write(tmp_path / "wtag/prepared/dialog_val_L0_I1.jsonl", row(video_uid="b"), row(video_uid="a"))
    write(tmp_path / "ego4d/prepared/dialog_val_L0_I1.jsonl", row("ego4d", "c"))
    write(tmp_path / "ego4d/prepared/dialog_train_L0_I1.jsonl", row("ego4d", "d"))
    assert [c.video_uid for c in read_proassist(tmp_path)] == ["d", "c", "b", "a"]
    val = read_proassist(tmp_path, "*/prepared/*_val_*.jsonl")
    assert [c.video_uid for c in val] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("name", "said", "only"),
    [
        ("summary_train_L4096_I1", {}, True),
        ("dialog-klg-summary_train_L4096_I5+SEP", {}, True),
        ("summary_train_L4096_I1", {"summary_only": False}, False),  # the row knows best
        ("dialog-klg-sum_train_L4096_I1", {"summary_only": True}, True),
        ("dialog-klg-sum_train_L4096_I1", {}, False),
        ("summary_train", {}, False),  # a name of one's own
    ],
)
@pytest.mark.parametrize("rules", [OURS, PROASSIST])
def test_rows_of_summaries_alone_teach_no_silence(
    name: str, said: dict, only: bool, rules: SequenceRules, tmp_path: Path
) -> None:
    turns = [
        {"role": "frames", "start": 0, "end": 3},
        {"role": "system", "content": "Please summarize the progress."},
        {"role": "frames", "start": 3, "end": 4},
        {"role": "assistant", "content": "The pan is washed."},
    ]
    write(tmp_path / f"wtag/prepared/{name}.jsonl", row(conversation=turns, metadata=said))

    (conversation,) = read_proassist(tmp_path)
    labels = [moment.speak_label for moment in read_script(conversation, rules).moments]

    assert (labels.count(0) == 0) == only
    assert labels[:2] == [None if only else 0] * 2


def test_read_proassist_refuses_no_file_and_bad_row(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^data\.root=\S+/nope: there is no such folder; give"):
        read_proassist(tmp_path / "nope")
    (tmp_path / "wtag/prepared").mkdir(parents=True)
    with pytest.raises(
        RecordError,
        match=r"no file fits 'x\*' .*test_files=.*for files DIR/x\* it is data\.root",
    ):
        read_proassist(tmp_path, "x*")
    with pytest.raises(RecordError, match=r"'/x/\*\.jsonl' .*must be below data\.root="):
        read_proassist(tmp_path, "/x/*.jsonl")
    write(tmp_path / "wtag/prepared/a.jsonl", row(), row(fps=0))
    with pytest.raises(RecordError, match=r"a\.jsonl:2: 'fps'"):
        read_proassist(tmp_path)


def spoken(*times_s: float, frames: int = 1) -> dict:
    """A row whose turns, user's and assistant's by turns, have these times, and frames between."""
    turns = []
    for i, time_s in enumerate(times_s):
        turns += [
            {"role": "frames", "start": i * frames, "end": (i + 1) * frames},
            {"role": ("assistant", "user")[i % 2], "time": time_s, "content": f"words {i}"},
        ]
    return row(conversation=turns, end_frame_idx=len(times_s) * frames, use_img_sep_token=False)


def test_times_that_their_code_lets_go_back_are_taken_from_their_turns(tmp_path: Path) -> None:
    path = tmp_path / "wtag/prepared/dialog_train_L0_I1.jsonl"
    # by ``adjust_time``, of 100.0, 100.2 and 100.2; and an answer before its question
    write(path, spoken(1.0, 2.0), spoken(100.0, 101.0, 100.2), spoken(3.0, 50.0, 49.5, 49.9))

    with pytest.warns(UserWarning, match=r"I1\.jsonl: 3 turns have .*first at .*l:2: turn 5: its"):
        rows = read_proassist(tmp_path)

    said = [[turn for turn in made.turns if hasattr(turn, "time_s")] for made in rows]
    assert [[turn.time_s for turn in turns] for turns in said] == [
        [1.0, 2.0], [100.0, 101.0, None], [3.0, 50.0, None, None]
    ]  # fmt: skip
    assert [turn.content for turn in said[2]] == [f"words {i}" for i in range(4)]
    listed = read_data_file(path)
    assert not listed.faults
    assert listed.warning.startswith(f"{path}: 3 turns have times before that of an earlier turn")
    write(path, spoken(1.0, 1.0))
    assert read_data_file(path).warning == ""


@pytest.mark.parametrize(("changes", "frames"), [({"use_img_sep_token": None}, 1), ({}, 2)])
def test_other_times_that_go_back_are_refused(changes: dict, frames: int, tmp_path: Path) -> None:
    """In records of one's own, and where ProAssist's code would not have placed the turn."""
    made = {**spoken(100.0, 101.0, 100.2, frames=frames), **changes}
    path = tmp_path / "wtag/prepared/train.jsonl"
    write(path, {key: value for key, value in made.items() if value is not None})

    fault = r"train\.jsonl:1: turn 5: its time 100\.2 s is before an earlier turn's 101\.0 s"
    with pytest.raises(RecordError, match=fault):
        read_proassist(tmp_path)
    assert len(read_data_file(path).faults) == 1


def test_frames_file_drops_the_first_part_for_assembly101_only() -> None:
    assert frames_file("assembly101", "disassembly_nusar_1_x") == "frames/nusar_1_x.arrow"
    assert frames_file("holoassist", "R07_x") == "frames/R07_x.arrow"
    with pytest.raises(RecordError, match=r"'nusar' of assembly101.*give the full name"):
        frames_file("assembly101", "nusar")


def test_feature_file_follows_frames_file() -> None:
    made = parse_record(row("assembly101", "assembly_x_y"), where="a.jsonl:1")
    root = Path("data")
    assert feature_file(made, root, encoder="e") == root / "assembly101/features/e/x_y.arrow"
    assert feature_file(made, root).parent.name == "google___siglip-so400m-patch14-384@-2"


@pytest.mark.parametrize(
    "name",
    [
        "x.arrow",
        "features/x.arrow",
        "/x.arrow",
        "frames/../../x.arrow",
        "frames/cam1.left",
        "frames/Recording at 10.30.15",
    ],
)
def test_feature_file_refuses_other_places(name: str) -> None:
    made = replace(parse_record(row(), where="a.jsonl:1"), frames_file=name)
    with pytest.raises(RecordError, match=r"a\.jsonl:1: 'frames_file' is .*must be 'frames/X"):
        feature_file(made, Path("data"))


@pytest.mark.parametrize("name", ["x", "cam1.left.arrow", "a/cam1.left.safetensors"])
def test_feature_file_takes_names_that_lose_nothing(name: str) -> None:
    made = replace(parse_record(row(), where="a.jsonl:1"), frames_file=f"frames/{name}")
    assert feature_file(made, Path("data"), encoder="e") == Path("data/wtag/features/e", name)


@pytest.mark.skipif(
    not (DATA_DIR / "proassist").is_dir(), reason=f"no genuine rows in {DATA_DIR / 'proassist'}"
)
def test_genuine_rows_are_read_in_place() -> None:
    made = read_proassist(DATA_DIR / "proassist", "dialog_sample.jsonl")
    assert len(made) == 6
    assert {c.metadata["user_type"] for c in made} == {"no_talk", "talk_some", "talk_more"}
    for conversation in made:
        # their own code named the file: ours must agree
        assert conversation.frames_file == frames_file("assembly101", conversation.video_uid)
        name = feature_file(conversation, Path("data")).name
        assert name == Path(conversation.frames_file).name
        assert conversation.turns[-1].__class__.__name__ in ("FramesTurn", "AssistantTurn")
        assert 300 < conversation.num_frames < 700
