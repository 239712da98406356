"""Rows of the DST extension become conversations, with their features and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from proassist_lit.build import build_core, build_examples
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.data.dataset import load_data
from proassist_lit.data.sources.dst import conversation_to_row, row_to_conversation
from proassist_lit.errors import ConfigError, FeatureError, RecordError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.data import test_arrow_features, test_frames
from tests.data.dst_rows import EVENTS, row, same, told, with_turn


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


def test_a_key_that_nobody_knows_may_hold_anything() -> None:
    plain, odd = (
        read_script(row_to_conversation(with_turn(3, **extra), "x"))
        for extra in ({}, {"frame": [12, 14]})
    )
    assert [m.has_event for m in odd.moments] == [m.has_event for m in plain.moments]


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


def test_rows_with_empty_words_are_read_by_the_rules_of_the_extension_alone(root: Path) -> None:
    for split in ("train", "val"):
        raw = with_turn(5, content="", role="assistant")
        (root / f"wtag/{split}.json").write_text(json.dumps([raw]))

    def run(compat: Compat, chat: str) -> RunConfig:
        return RunConfig(
            compat=compat,
            data=config(root),
            model=ModelConfig(
                chat=chat, tiny=TinyConfig(hidden_size=16, num_layers=2, num_heads=2)
            ),
            stream=StreamConfig(strategy=Strategy.DROP_MIDDLE, max_new_tokens=2, max_dst_tokens=2),
            evaluation=EvaluationConfig(similarity="words", candidates=1),
        )

    for refusing in (run(Compat.NONE, "dst_ext"), run(Compat.PROASSIST, "compact")):
        with pytest.raises(RecordError, match=r"train\.json\[0\]: turn 5: 'content' is empty"):
            build_core(refusing)

    theirs = run(Compat.PROASSIST, "dst_ext")
    core = build_core(theirs)
    (conversation,) = core.data["train"]
    texts = [turn.content for turn in conversation.turns if isinstance(turn, AssistantTurn)]
    assert texts == ["Cut.", ""]
    moments = read_script(conversation, theirs.rules).moments
    assert all(span.content for moment in moments for span in moment.spans)
    assert build_examples(theirs, core, "train")[0, 0].pos_frame_mask.any()
    metrics = core.evaluator.evaluate(core.model).metrics
    assert metrics["baseline/always_speak/test/utterance_recall"] > 0  # it says "Cut."


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
