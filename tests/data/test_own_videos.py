"""Spreadsheets become records that training reads, by ``proassist-lit prepare``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn, Conversation, DstTurn, UserTurn
from proassist_lit.data.dataset import load_data
from proassist_lit.data.feature_content import write_content
from proassist_lit.data.features import write_features
from proassist_lit.data.records import read_records
from proassist_lit.data.sources.own_videos import video_uid
from proassist_lit.errors import FeatureError
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.types import StepState

FPS = 2.0
Captured = pytest.CaptureFixture[str]


def encode(
    folder: Path, name: str, *, num_frames: int = 41, encoder: str = "eyes",
    grids: Sequence[str] = ("cls", "2x2"), suffix: str = "safetensors", fps: float = FPS,
) -> None:  # fmt: skip
    """Features as ``proassist-lit encode`` writes them."""
    cells = {"cls": torch.zeros(num_frames, 1, 4), "2x2": torch.zeros(num_frames, 4, 4)}
    made = {"num_frames": num_frames, "fps": fps, "grids": list(grids)}
    path = folder / "features" / encoder / f"{name}.{suffix}"
    write_content(path, cells, {"fps": str(fps), "made": json.dumps(made)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of six encoded videos of 20 s, without records."""
    for i in range(6):
        encode(tmp_path / "tea", f"v{i}")
    return tmp_path / "tea"


def prepare(folder: Path, text: str, *options: str) -> int:
    sheet = folder.parent / "steps.csv"
    sheet.write_text(text)
    return main(["prepare", str(sheet), str(folder), *options])


def rows(*names: str) -> str:
    return "video,step,start,end\n" + "".join(
        f"{name}.mp4,Fill the kettle,2,6\n{name}.mp4,Warm the pot,,\n"
        f"{name}.mp4,Pour the tea into the cup,8.3,15\n"
        for name in names
    )


def records(folder: Path, split: str) -> list[Conversation]:
    return read_records(folder / f"prepared/{split}.jsonl")


SIX = [f"v{i}" for i in range(6)]


def test_records_are_read_by_a_run(folder: Path, capsys: Captured) -> None:
    assert prepare(folder, rows(*SIX), "--task", "Make tea") == 0
    assert "train.jsonl: 12 conversations over 4 videos" in capsys.readouterr().out
    config = DataConfig(
        source="proassist", root=str(folder.parent), encoder="eyes", num_tokens_per_img=5,
        train_files="*/prepared/train.jsonl", val_files="*/prepared/val.jsonl",
        test_files="*/prepared/test.jsonl",
    )  # fmt: skip
    sets = load_data(config)
    assert {split: len(some) for split, some in sets.items()} == {"train": 12, "val": 1, "test": 1}
    assert sets["train"].check_features() == 4
    videos = [{c.video_uid for c in some} for some in sets.values()]
    assert sorted(uid for uids in videos for uid in uids) == SIX  # in one split each
    first = sets["train"].conversations[0]
    assert (first.dataset, first.fps, first.end_frame_idx) == ("tea", FPS, 41)
    assert (first.num_tokens_per_img, first.metadata["rendered"]) == (5, False)
    assert sets["train"].features(first).shape == (41, 5, 4)


def test_features_of_another_rate_than_the_records_are_refused(folder: Path) -> None:
    assert prepare(folder, rows(*SIX), "--task", "Make tea") == 0
    config = DataConfig(
        source="proassist", root=str(folder.parent), encoder="eyes", num_tokens_per_img=5,
        train_files="*/prepared/train.jsonl", val_files="*/prepared/val.jsonl",
        test_files="*/prepared/test.jsonl",
    )  # fmt: skip
    for name in SIX:
        encode(folder, name, num_frames=82, fps=4.0)
    with pytest.raises(
        FeatureError, match=r"train\.jsonl:1: has 2 frames a second, but .* with 4, .*prepare"
    ):
        load_data(config)["train"].check_features()


def test_keywords_stand_in_the_name_of_the_step(folder: Path) -> None:
    text = rows(*SIX).replace("Fill the kettle", "Add the green (fresh) beans")
    assert prepare(folder, text, "--task", "make tea", "--users", "no_talk") == 0
    for conversation in records(folder, "train"):
        first = next(t for t in conversation.turns if isinstance(t, AssistantTurn))
        assert first.keywords == ("add", "beans")


def test_steps_say_when_the_state_changes_and_what_is_right(folder: Path) -> None:
    assert prepare(folder, rows(*SIX), "--task", "make tea", "--users", "no_talk") == 0
    for conversation in records(folder, "train"):
        names = [step.name for step in conversation.steps]
        assert names == ["fill the kettle", "warm the pot", "pour the tea into the cup"]
        refs = references(read_script(conversation))
        changes = {i: [str(u) for u in r.updates] for i, r in enumerate(refs) if r.updates}
        assert list(changes) == [4, 12, 17, 30]  # the first frames not before 2, 6, 8.3, 15 s
        spoken = [t for t in conversation.turns if isinstance(t, AssistantTurn)]
        assert spoken[0].keywords == ("fill", "kettle")
        assert any("warm the pot" in turn.content for turn in spoken)  # it was left out


def test_words_that_were_said_are_the_dialogue(folder: Path) -> None:
    said = "video,step,start,end,said,speaker,task\n" + "".join(
        f"{name},Fill the kettle,2,6,I'll begin.,user,make tea\n"
        f'{name},,6,,"Full enough, thanks.",,\n'
        f"{name},Pour,8,10,,,\n"
        for name in SIX
    )
    assert prepare(folder, said) == 0
    assert len(records(folder, "train")) == 4  # one for each video, whatever the users
    (conversation,) = records(folder, "val")
    assert conversation.metadata["user_type"] == "recorded"
    (user,) = (t for t in conversation.turns if isinstance(t, UserTurn))
    (spoken,) = (t for t in conversation.turns if isinstance(t, AssistantTurn))
    assert (user.content, user.time_s) == ("I'll begin.", 2.0)
    assert (spoken.content, spoken.time_s) == ("Full enough, thanks.", 6.0)
    assert spoken.progress is not None
    assert "Done: fill the kettle." in spoken.progress
    updates = [u for t in conversation.turns if isinstance(t, DstTurn) for u in t.updates]
    assert [(u.id, u.transition.value) for u in updates] == [
        ("S1", "start"), ("S1", "complete"), ("S2", "start"), ("S2", "complete"),
    ]  # fmt: skip
    reference = references(read_script(conversation))[12]
    assert reference.text == "Full enough, thanks."


QUICK = [  # at 2 frames a second, the first four within one
    (10.1, "assistant", "Switch it on."), (10.2, "user", "Like this?"), (10.3, "assistant", "Yes."),
    (10.4, "user", "Thanks."), (10.6, "assistant", "Now wait."), (19.7, "assistant", "It boils."),
    (19.8, "user", "Done?"), (19.9, "assistant", "Done."), (20.0, "user", "Bye."),
]  # fmt: skip


def test_quick_turns_keep_their_order(folder: Path) -> None:
    text = "video,step,start,end,said,speaker,task\n" + "".join(
        f"{name},Fill the kettle,2,6,,,make tea\n"
        + "".join(f"{name},,{time_s},,{words},{who},\n" for time_s, who, words in QUICK)
        for name in SIX
    )
    assert prepare(folder, text) == 0
    (conversation,) = records(folder, "test")
    spoken = [t for t in conversation.turns if isinstance(t, (AssistantTurn, UserTurn))]
    assert [(turn.time_s, turn.content) for turn in spoken] == [(t, words) for t, _, words in QUICK]
    script = read_script(conversation)
    heard = {m.frame_idx: [t.content for t in m.before] for m in script.moments if m.before}
    assert heard == {22: ["Like this?"], 23: ["Thanks."]}
    said = {m.frame_idx: m.utterance for m in script.moments if m.utterance}
    assert said == {21: "Switch it on.", 22: "Yes.", 23: "Now wait.", 40: "It boils."}
    assert [text.content for text in script.after] == ["Done?", "Done.", "Bye."]


def test_nothing_is_written_if_one_split_has_a_fault(folder: Path, capsys: Captured) -> None:
    text = "video,step,start,end,split\n" + "".join(
        f"v{i},Cut,1,2,{split}\n" for i, split in enumerate(["train", "val", "test"])
    )
    encode(folder, "v2", grids=())
    assert prepare(folder, text, "--task", "cook") == 2
    assert re.search(r"steps\.csv:4: 'num_tokens_per_img' ", capsys.readouterr().err)
    assert not (folder / "prepared").exists()


def test_splits_are_those_of_the_spreadsheet(folder: Path) -> None:
    text = "video,step,start,end,split\n" + "".join(
        f"v{i},Cut,1,2,{split}\n" for i, split in enumerate(["test", "val", "train"])
    )
    assert prepare(folder, text, "--task", "cook") == 0
    got = {s: [c.video_uid for c in records(folder, s)] for s in ("train", "val", "test")}
    assert got == {"train": ["v2"] * 3, "val": ["v1"], "test": ["v0"]}


def test_lots_are_those_of_the_seed(folder: Path) -> None:
    held = set()
    for seed in ("1", "1", "2", "3", "4", "5"):
        assert prepare(folder, rows(*SIX), "--task", "cook", "--seed", seed) == 0
        held.add((records(folder, "val")[0].video_uid, records(folder, "test")[0].video_uid))
        if seed == "1":
            assert len(held) == 1
    assert len(held) > 2


def test_users_of_held_out_videos_take_turns(folder: Path) -> None:
    assert prepare(folder, rows(*SIX), "--task", "cook", "--held-out", "0.3") == 0
    types = [c.metadata["user_type"] for s in ("val", "test") for c in records(folder, s)]
    assert len(types) == 4
    assert set(types) == {"no_talk", "talk_some", "talk_more"}


def test_times_that_were_rounded_up_end_with_the_video(folder: Path) -> None:
    text = "video,step,start,end\n" + "".join(f"{name},Cut,1,20.9\n" for name in SIX)
    assert prepare(folder, text, "--task", "cook") == 0
    last = references(read_script(records(folder, "test")[0]))[-1]
    assert [str(update.id) for update in last.updates] == ["S1"]


@pytest.mark.parametrize("words", ["", "Bye."])
def test_step_behind_the_last_frame_begins_before_it_ends(folder: Path, words: str) -> None:
    text = "video,step,start,end,said\n" + "".join(
        f"{name},Cut,1,20,{words}\n{name},Stir,20.1,20.4,\n" for name in SIX
    )
    assert prepare(folder, text, "--task", "cook", "--users", "no_talk") == 0
    last = references(read_script(records(folder, "test")[0]))[-1]
    assert [(u.id, u.transition.value) for u in last.updates] == [
        ("S1", "complete"), ("S2", "start"), ("S2", "complete"),
    ]  # fmt: skip
    assert set(last.state.values()) == {StepState.COMPLETED}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (rows("v1", "v2", "w"), ["--task", "t"], r":8: video 'w' has no features in .*v0, v1"),
        (rows(*SIX), [], r":2: video 'v0' has no task; .*--task"),
        (rows("v0", "v1"), ["--task", "t"], r"2 videos cannot be shared out, with 1 each"),
        ("video,step,start,end\nv0,Cut,1,22\nv1,A,1,2\nv2,B,1,2\n", ["--task", "t"],
         r":2: ends at 22 s, but the last frame of the video is at 20 s"),
        ("video,step,start,end,said\nv0,Cut,1,2,\nv0,,30,,Hm\nv1,A,1,2,\nv2,B,1,2,\n",
         ["--task", "t"], r":3: has words at 30 s, but the last frame"),
        ("video,step,start,end,split\nv0,Cut,1,2,val\nv1,Cut,1,2,\n", ["--task", "t"],
         r":3: video 'v1' has no split, though others have"),
        ("video,step,start,end,split\nv0,Cut,1,2,val\nv1,Cut,1,2,val\n", ["--task", "t"],
         r"no video is of the split train or test"),
        (rows(*SIX), ["--task", "t", "--held-out", "0.5"], r"--held-out 0\.5: must be between"),
        (rows(*SIX), ["--task", "t", "--users", "loud"], r"--users loud: 'loud' is no kind"),
        (rows(*SIX), ["--task", "t", "--encoder", "ears"], r"--encoder ears: .* holds eyes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    text: str, options: list[str], said: str, folder: Path, capsys: Captured
) -> None:
    assert prepare(folder, text, *options) == 2
    told = capsys.readouterr().err
    assert re.search(f"^error: .*{said}", told), told
    assert not (folder / "prepared").exists()


def test_columns_that_mean_nothing_are_named(folder: Path, capsys: Captured) -> None:
    text = rows(*SIX).replace("end\n", "end,saids\n", 1)
    assert prepare(folder, text, "--task", "cook") == 0
    assert "steps.csv: columns left out: saids\n" in capsys.readouterr().err


def test_features_are_needed_first_and_of_one_encoder(folder: Path, capsys: Captured) -> None:
    encode(folder, "v0", encoder="ears")
    assert prepare(folder, rows(*SIX), "--task", "cook") == 2
    assert "--encoder is missing: " in capsys.readouterr().err
    assert prepare(folder, rows(*SIX), "--task", "cook", "--encoder", "eyes") == 0
    capsys.readouterr()
    assert prepare(folder.parent / "new", rows(*SIX), "--task", "cook") == 2
    assert re.search("new/features: holds no features; encode the videos", capsys.readouterr().err)


def test_features_that_do_not_say_how_they_were_made_are_refused(
    folder: Path, capsys: Captured
) -> None:
    path = folder / "features/eyes/v0.safetensors"
    write_features(path, {"cls": torch.zeros(41, 1, 4)}, fps=2, encoder="x", rendered=False)
    assert prepare(folder, rows(*SIX), "--task", "cook") == 2
    assert "v0.safetensors: does not say how many frames it holds" in capsys.readouterr().err


def test_of_two_files_of_features_the_one_that_training_reads_counts(folder: Path) -> None:
    encode(folder, "v0", num_frames=31, suffix="arrow")
    assert prepare(folder, rows(*SIX), "--task", "cook") == 0
    made = [c for split in ("train", "val", "test") for c in records(folder, split)]
    assert {c.end_frame_idx for c in made if c.video_uid == "v0"} == {31}
    path = folder / "features/eyes/v0.arrow"
    assert open_features(path, ["cls"]).shape()[0] == 31


def test_two_videos_of_one_name_are_refused(folder: Path, capsys: Captured) -> None:
    for name in ("a/b", "a_b"):
        encode(folder, name)
    assert prepare(folder, rows("v1", "v2", "a/b", "a_b"), "--task", "cook") == 2
    assert ":11: videos 'a/b' and 'a_b' would both be called 'a_b'" in capsys.readouterr().err
    assert prepare(folder, rows("v1", "v2", "a/b"), "--task", "cook") == 0
    made = [c for split in ("train", "val", "test") for c in records(folder, split)]
    assert {c.frames_file for c in made if c.video_uid == video_uid("a/b")} == {"frames/a/b.arrow"}
