"""Training goes on from a folder of Hugging Face's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proassist_lit.build import build_model
from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.model.backbone import build_tokenizer
from proassist_lit.model.config import Decision, ModelConfig, TrainMode
from proassist_lit.model.lora import has_lora
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from tests.exchange.fakes import LORA, base_folder, exported, make_run, settings, shake, stream
from tests.fakes import VISION_SIZE


@pytest.mark.road
def test_training_goes_on_from_a_folder(tmp_path: Path) -> None:
    out = exported(tmp_path, TrainMode.LORA)
    before, _ = load_assistant(out)
    for train in TrainMode:
        if train is TrainMode.QLORA:
            continue
        config = RunConfig(
            model=ModelConfig(init_from=str(out), chat="llama3", train=train, lora=LORA)
        )
        tokenizer = build_tokenizer(config.model, list)
        model = build_model(config, tokenizer, VISION_SIZE).eval()
        assert stream(model) == stream(before)  # new additions begin as nothing
        assert has_lora(model.lm) == (train is TrainMode.LORA)
        assert not hasattr(model.lm.get_input_embeddings(), "rows")
        shake(model)
        assert stream(model) != stream(before)

    config = replace(config, model=replace(config.model, train=TrainMode.LORA))
    run, model = make_run(tmp_path / "second", config.model)
    assert main(["export", str(run), str(tmp_path / "second_out"), "--merge"]) == 0
    assert stream(load_assistant(tmp_path / "second_out")[0]) == stream(model)


def test_heads_that_a_folder_lacks_begin_untrained_if_that_is_meant(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    config = replace(settings(base, TrainMode.FULL), dst=False)
    run, _ = make_run(tmp_path / "run", config)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    begin = ModelConfig(init_from=str(tmp_path / "out"), chat="llama3", train=TrainMode.FROZEN)
    tokenizer = build_tokenizer(begin, list)
    with pytest.raises(CheckpointError, match=r"2 missing: dst_head\.net\.bias, .*init_new"):
        build_model(RunConfig(model=begin), tokenizer, VISION_SIZE)
    with pytest.raises(ConfigError, match=r"the model has no dsthead; it has dst_head, speak_head"):
        build_model(RunConfig(model=replace(begin, init_new=["dsthead"])), tokenizer, VISION_SIZE)
    model = build_model(
        RunConfig(model=replace(begin, init_new=["dst_head"])), tokenizer, VISION_SIZE
    )
    assert model.dst_head is not None


def test_a_head_that_decides_in_another_way_begins_untrained_if_that_is_meant(
    tmp_path: Path,
) -> None:
    run, trained = make_run(
        tmp_path / "run", settings(base_folder(tmp_path / "base"), TrainMode.FULL)
    )
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    begin = RunConfig(
        model=ModelConfig(
            init_from=str(tmp_path / "out"), chat="llama3",
            decision=Decision.INFORMATIVE_RELEVANCE, init_new=["speak_head"],
        ),
        objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
    )  # fmt: skip
    tokenizer = build_tokenizer(begin.model, list)

    model = build_model(begin, tokenizer, VISION_SIZE)

    assert torch.equal(model.dst_head.net.weight, trained.dst_head.net.weight)
    with pytest.raises(
        CheckpointError, match=r"4 missing: speak_head\.informative.*left over: spe"
    ):
        build_model(replace(begin, model=replace(begin.model, init_new=[])), tokenizer, VISION_SIZE)
