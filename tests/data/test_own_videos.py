"""Spreadsheets become records that training reads, by ``proassist-lit prepare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn, DstTurn, UserTurn
from proassist_lit.data.dataset import load_data
from proassist_lit.data.records import write_records
from proassist_lit.errors import FeatureError
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.types import StepState
from tests.data.tea_videos import FPS, SIX, Captured, encode, prepare, records, rows


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


def test_two_data_sets_with_videos_of_one_name_are_read_together(folder: Path) -> None:
    other = folder.parent / "coffee"
    for name in SIX:
        encode(other, name)
    assert prepare(folder, rows(*SIX), "--task", "make tea") == 0
    assert prepare(other, rows(*SIX), "--task", "make coffee") == 0
    extra = replace(records(other, "test")[0], clip_idx=1)
    write_records(other / "prepared/test.jsonl", [*records(other, "test"), extra])
    config = DataConfig(
        source="proassist", root=str(folder.parent), encoder="eyes", num_tokens_per_img=5,
        train_files="*/prepared/train.jsonl", val_files="*/prepared/val.jsonl",
        test_files="*/prepared/test.jsonl",
    )  # fmt: skip
    sets = load_data(config)
    (one, two), tests = sets["val"], list(sets["test"])
    assert one.id == two.id  # which is what chance is drawn by
    assert [c.stream_id for c in (one, two)] == [f"coffee/{one.id}", f"tea/{one.id}"]
    assert [c.stream_id for c in tests] == [
        f"coffee/{tests[0].id}", extra.id, f"tea/{tests[0].id}"
    ]  # fmt: skip
    assert load_data(replace(config, max_val=1))["val"].conversations == (one,)
    assert all(c.stream_id == c.id for c in sets["train"])


def test_names_with_accents_are_found_however_they_are_written(folder: Path) -> None:
    for name in SIX:
        encode(folder, f"matinée/{name}")  # as Linux writes it
        encode(folder, f"soire\u0301e/{name}")  # as a Mac does
    written = [f"{part}/{name}" for part in ("matine\u0301e", "soirée") for name in SIX]
    assert prepare(folder, rows(*written), "--task", "make tea") == 0
    made = [c for split in ("train", "val", "test") for c in records(folder, split)]
    files = {c.frames_file for c in made}
    assert len(files) == 12
    for file in files:
        features = folder / "features/eyes" / file.removeprefix("frames/")
        assert features.with_suffix(".safetensors").exists()


def test_a_linked_data_set_is_called_by_the_name_of_the_link(folder: Path) -> None:
    link = folder.parent / "own/mornings"
    link.parent.mkdir()
    link.symlink_to(folder)
    assert prepare(link, rows(*SIX), "--task", "Make tea") == 0
    assert {c.dataset for c in records(folder, "train")} == {"mornings"}


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
