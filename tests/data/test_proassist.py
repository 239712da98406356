import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.data.records import parse_record
from proassist_lit.data.sources.proassist import feature_file, frames_file, read_proassist
from proassist_lit.errors import RecordError
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
    "name", ["x.arrow", "features/x.arrow", "/x.arrow", "frames/../../x.arrow"]
)
def test_feature_file_refuses_other_places(name: str) -> None:
    made = replace(parse_record(row(), where="a.jsonl:1"), frames_file=name)
    with pytest.raises(RecordError, match=r"a\.jsonl:1: 'frames_file' is .*must be 'frames/X"):
        feature_file(made, Path("data"))


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
