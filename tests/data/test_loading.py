from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.data.dataset import load_data, training_texts
from proassist_lit.data.features import write_features
from proassist_lit.data.generate import generated_folder
from proassist_lit.errors import ConfigError, FeatureError, RecordError
from tests.data.generated import data_config


def test_load_data_gives_records_with_their_features(made: Path) -> None:
    sets = load_data(data_config(made))

    assert list(sets) == ["train", "val", "test"]
    assert len(sets["train"]) == 6
    for split in sets.values():
        assert split.check_features() == 4 * 4 * 3
        for conversation in split:
            assert split.features(conversation).shape == (conversation.num_frames, 5, 48)


def test_features_are_those_of_the_drawn_frames(made: Path) -> None:
    val = load_data(data_config(made))["val"]
    conversation = val.conversations[0]
    pictures = val.frames(conversation, [0, 17])

    features = val.features(conversation)
    for picture, row in zip(pictures, features[[0, 17]], strict=True):
        want = picture.reshape(4, 16, 4, 16, 3).mean((1, 3)).reshape(-1) / 64 - 2
        np.testing.assert_allclose(row[0].numpy(), want, atol=2e-3)


@pytest.mark.parametrize("limited", ["train", "val", "test"])
def test_a_limit_keeps_the_first_of_its_split(limited: str, made: Path) -> None:
    every, few = load_data(data_config(made)), load_data(data_config(made, **{f"max_{limited}": 1}))

    for split, found in every.items():
        assert len(found) > 1
        kept = 1 if split == limited else len(found)
        assert few[split].conversations == found.conversations[:kept]


def test_share_keeps_the_first_of_every_split(made: Path) -> None:
    every, few = load_data(data_config(made)), load_data(data_config(made, share=0.3))

    assert few["train"].conversations == every["train"].conversations[:2]  # of 6
    assert few["test"].conversations == every["test"].conversations[:1]


def test_data_sets_are_known_though_a_limit_leaves_them_out(copy: DataConfig) -> None:
    path = generated_folder(copy) / "val.jsonl"
    first, second, *_ = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), 'dataset': 'tea'})}\n")

    assert load_data(replace(copy, max_val=1))["val"].datasets == {"toy", "tea"}


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"data\.share must be in \(0, 1\], got {share}; 1 for"):
        DataConfig(share=share)


def test_training_texts_hold_what_is_said_and_all_state_marks(made: Path) -> None:
    train = load_data(data_config(made))["train"]
    texts = list(training_texts(train))
    conversation = train.conversations[0]

    for turn in conversation.turns:
        if isinstance(turn, AssistantTurn):
            assert turn.content in texts
            assert turn.progress in texts
    for step in conversation.steps:
        assert f"Steps: {step.id}: {step.name} (completed)." in texts
        assert f"{step.id}->start;{step.id}->complete" in texts


def test_missing_features_name_record_and_file(copy: DataConfig) -> None:
    sets = load_data(copy)
    (generated_folder(copy) / "features" / "thumbnail4" / "toy-val-00001.safetensors").unlink()

    with pytest.raises(
        FeatureError, match=r"val\.jsonl:2: feature file .*toy-val-00001.* does not exist"
    ):
        sets["val"].check_features()


def test_features_that_are_too_short_name_record_and_file(copy: DataConfig) -> None:
    sets = load_data(copy)
    rewrite(copy, "toy-val-00000", num_frames=12, width=48)

    with pytest.raises(
        FeatureError, match=r"val\.jsonl:1: watches frames 0\.\.\d+, but .* holds frames 0\.\.11;"
    ):
        sets["val"].check_features()


def test_features_of_two_widths_are_refused(copy: DataConfig) -> None:
    sets = load_data(copy)
    rewrite(copy, "toy-val-00001", num_frames=900, width=12)

    with pytest.raises(
        RecordError,
        match=r"val\.jsonl:2: .*toy-val-00001.*are 12 wide, but those of .*00000.* are 48",
    ):
        sets["val"].check_features()


def test_features_of_other_cells_name_record_and_file(copy: DataConfig) -> None:
    sets = load_data(copy)
    rewrite(copy, "toy-val-00001", num_frames=900, width=48, cells=9)

    with pytest.raises(
        FeatureError,
        match=r"val\.jsonl:2: .*toy-val-00001.*: grid '2x2' is \(900, 9, 48\), expected",
    ):
        sets["val"].check_features()


def test_every_record_is_held_against_the_rate_of_its_features(copy: DataConfig) -> None:
    path = generated_folder(copy) / "val.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    later = {**record, "clip_idx": 1, "fps": 1.0}
    path.write_text(f"{json.dumps(record)}\n{json.dumps(later)}\n")

    with pytest.raises(
        FeatureError, match=r"val\.jsonl:2: has 1 frames a second, but .*00000.* encoded with 2,"
    ):
        load_data(copy)["val"].check_features()


def rewrite(
    config: DataConfig, video_uid: str, *, num_frames: int, width: int, cells: int = 4
) -> None:
    path = generated_folder(config) / "features" / "thumbnail4" / f"{video_uid}.safetensors"
    sizes = {"cls": 1, "2x2": cells}
    grids = {name: torch.zeros(num_frames, n, width).half() for name, n in sizes.items()}
    write_features(path, grids, fps=2.0, encoder="thumbnail4", rendered=True)


def test_two_streams_of_one_name_are_refused(copy: DataConfig) -> None:
    path = generated_folder(copy) / "val.jsonl"
    record = path.read_text().splitlines()[0]
    path.write_text(f"{record}\n{record}\n")
    with pytest.raises(RecordError, match=r"val\.jsonl:2: is named '.*', as .*val\.jsonl:1 is"):
        load_data(copy)


def test_load_data_refuses_a_broken_record_file(copy: DataConfig) -> None:
    path = generated_folder(copy) / "val.jsonl"
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(RecordError, match=r"val\.jsonl:3"):
        load_data(copy)

    path.write_text("")
    with pytest.raises(RecordError, match=r"val\.jsonl: holds no records"):
        load_data(copy)


@pytest.mark.parametrize("split", ["train", "val"])
def test_load_data_needs_train_and_val(copy: DataConfig, split: str) -> None:
    (generated_folder(copy) / f"{split}.jsonl").unlink()

    with pytest.raises(RecordError, match=rf"has no {split} records; every run needs them"):
        load_data(copy)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"source": "proassist"}, r"data\.root is empty; name the folder of the prepared"),
        ({"source": "captaincook4d"}, r"data\.root is empty; .*annotation files"),
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, got 0"),
        *(
            ({name: -1}, rf"data\.{name} must be at least 0, got -1")
            for name in ("num_workers", "max_train", "max_val", "max_test", "other_orders")
        ),
        ({"max_seq_len": 63}, r"data\.max_seq_len must be at least 64, got 63"),
        ({"num_tokens_per_img": 3}, r"num_tokens_per_img is 3; choose one of 1, 5, 10"),
        ({"encoder": "resnet"}, r"data\.encoder is 'resnet'"),
    ],
)
def test_data_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**setting)
