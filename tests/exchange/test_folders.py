"""Assistants as folders of Hugging Face's layout: out, in, and streamed as before."""

from __future__ import annotations

import json
import re
import resource
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.commands.trained import find_trained
from proassist_lit.exchange import write
from proassist_lit.exchange.description import read_assistant
from proassist_lit.model.as_streamed import as_streamed
from proassist_lit.model.assistant_folder import head_tensors
from proassist_lit.model.config import Decision, Dtype, ModelConfig, TrainMode
from proassist_lit.model.lora import merged
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import SpeakRule, StreamConfig
from tests.exchange.fakes import (
    LORA,
    STREAM,
    TINY,
    Captured,
    base_folder,
    error,
    make_run,
    settings,
    stream,
)
from tests.fakes import VISION_SIZE


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(("chat", "tied"), [("llama3", False), ("compact", True)])
def test_out_and_in_again_streams_the_same(
    lora: bool, chat: str, tied: bool, tmp_path: Path, capsys: Captured
) -> None:
    base = base_folder(tmp_path / "base", tied=tied)  # compact: its tokens are new to it
    train = TrainMode.LORA if lora else TrainMode.FULL
    run, model = make_run(tmp_path / "run", settings(base, train, chat))
    want = stream(model)
    assert any(frame.text for frame in want.frames)
    assert len({frame.speak_prob for frame in want.frames}) == len(want.frames)

    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "in")]) == 0

    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "out/adapter_model.safetensors").is_file() == lora
    assert (tmp_path / "out/model.safetensors").is_file() != lora
    assert (tmp_path / "in/model.safetensors").is_file()
    for name in ("out", "in"):
        again, about = load_assistant(tmp_path / name)
        assert stream(again) == want
        assert about.train == train.value
        assert about.config.stream.theta_speak == 0.25  # as the run chose on val
        assert about.config.stream.theta_dst == 0.75


@pytest.mark.parametrize("bf16_true", [False, True])
def test_sixteen_bits_go_out_and_in_to_the_bit(bf16_true: bool, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", tied=True)
    config = replace(settings(base, TrainMode.LORA, "compact"), dtype=Dtype.BFLOAT16)
    run, model = make_run(tmp_path / "run", config, bf16_true=bf16_true)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with as_streamed(model):
        weights, want = dict(model.lm.named_parameters()), stream(model)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())

    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "in")]) == 0

    again, _ = load_assistant(tmp_path / "in")
    with as_streamed(again):
        got = dict(again.lm.named_parameters())
        assert [name for name in weights if not torch.equal(weights[name], got[name])] == []
        assert stream(again) == want


@pytest.mark.parametrize("merge", [False, True])
def test_an_output_matrix_that_was_added_to_goes_out_and_in(merge: bool, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", tied=True)
    config = settings(base, TrainMode.LORA)
    run, model = make_run(tmp_path / "run", replace(config, lora=replace(LORA, lm_head=True)))
    flags = ["--merge"] if merge else []
    assert main(["export", str(run), str(tmp_path / "out"), *flags]) == 0
    again, _ = load_assistant(tmp_path / "out")
    assert stream(again) == stream(model)
    if merge:  # they are two matrices now
        data = json.loads((tmp_path / "out/config.json").read_text())
        assert data["tie_word_embeddings"] is False
        assert model.lm.config.tie_word_embeddings is True


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's own
def test_peft_reads_the_adapter(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    run, model = make_run(tmp_path / "run", settings(base, TrainMode.LORA))
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "out"
    ).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, model.lm(input_ids=ids).logits)


def test_transformers_reads_the_merged_folder(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    run, model = make_run(tmp_path / "run", settings(base, TrainMode.LORA, "compact"))
    assert main(["export", str(run), str(tmp_path / "out"), "--merge"]) == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad(), merged(model.lm):
        torch.testing.assert_close(theirs(input_ids=ids).logits, model.lm(input_ids=ids).logits)


def test_a_model_from_scratch_goes_out_whole(tmp_path: Path, capsys: Captured) -> None:
    for train in (TrainMode.FULL, TrainMode.LORA):
        config = ModelConfig(tiny=TINY, train=train, lora=LORA)
        run, model = make_run(tmp_path / train.value, config)
        out = tmp_path / f"{train.value}_out"
        if train is TrainMode.LORA:
            assert main(["export", str(run), str(out)]) == 2
            assert "cannot be had again from a hub; write it merged" in error(capsys)
            assert not out.exists()
        assert main(["export", str(run), str(out), "--merge"]) == 0
        again, _ = load_assistant(out)
        assert stream(again) == stream(model)


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    run, _ = make_run(tmp_path / "run", settings(base, TrainMode.LORA))
    (run / ".hydra").mkdir()  # as a start that was refused left it
    (run / ".hydra/overrides.yaml").write_text("- +experiment=refused\n- seed=4\n")
    assert main(["export", str(run), str(tmp_path / "older")]) == 0
    older = json.loads((tmp_path / "older/proassist_lit.json").read_text())
    assert older["command"] == "python train.py +experiment=refused seed=4"
    RunDirectory(run).write_notes({"command": "python train.py +experiment=x seed=3"})
    assert main(["export", str(run), str(tmp_path / "out")]) == 0

    data = json.loads((tmp_path / "out/proassist_lit.json").read_text())
    for key, value in {
        "base_model": str(base), "chat": "llama3", "theta_speak": 0.25, "fps": 2.0,
        "num_tokens_per_img": 1, "encoder": "thumbnail16", "similarity": "minilm",
        "vision_size": VISION_SIZE, "train": "lora",
        "command": "python train.py +experiment=x seed=3",
    }.items():  # fmt: skip
        assert data[key] == value, key
    card = (tmp_path / "out/README.md").read_text()
    assert "| utterance_f1 | – | 0.500 |" in card
    assert "python train.py +experiment=x seed=3" in card
    assert f"`{base}` with the low-rank additions of this folder" in card

    by_file = str(run / "checkpoints/last.ckpt")
    assert main(["export", by_file, str(tmp_path / "by_file")]) == 0
    assert read_assistant(tmp_path / "by_file").metrics == data["metrics"]


@pytest.mark.parametrize("what", [["", "--checkpoint", "best"], ["checkpoints/best.ckpt"]])
def test_metrics_and_thresholds_of_the_last_state_are_of_no_other(
    what: list[str], tmp_path: Path
) -> None:
    given = StreamConfig(theta_dst=0.4)
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY), stream=given)
    name, *flags = what
    assert main(["export", str(run / name), str(tmp_path / "out"), *flags]) == 0

    about = read_assistant(tmp_path / "out")
    assert (about.config.stream.theta_speak, about.config.stream.theta_dst) == (None, 0.4)
    assert not about.metrics
    card = (tmp_path / "out/README.md").read_text()
    assert "Not measured." in card
    assert "speak is chosen on val, update 0.400" in card


def test_a_folder_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    out = tmp_path / "there/out"

    def fail(*_: object, **__: object) -> str:
        assert not out.exists()
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(write, "model_card", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            main(["export", str(run), str(out)])
    assert not list(out.parent.iterdir())

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a full disk
    try:
        assert main(["export", str(run), str(out)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large (os error 27)); name a new folder" in error(capsys)
    assert not list(out.parent.iterdir())

    assert main(["export", str(run), str(out)]) == 0
    assert main(["export", str(run), str(out)]) == 2
    assert re.search(r"out: cannot be written .*exists already.*; name a new folder", error(capsys))


def test_two_heads_to_speak_go_out_and_in_with_their_rule(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    config = replace(settings(base, TrainMode.FULL), decision=Decision.INFORMATIVE_RELEVANCE)
    run, model = make_run(
        tmp_path / "run", config,
        objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
        stream=StreamConfig(rule=SpeakRule.RUNNING_SUM, theta_speak=2.5),
    )  # fmt: skip

    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "in")]) == 0

    again, about = load_assistant(tmp_path / "in")
    assert {"speak_head.informative.net.bias", "speak_head.relevance.net.bias"} <= set(
        head_tensors(again)
    )
    assert (about.config.stream.rule, about.config.stream.theta_speak) == (
        SpeakRule.RUNNING_SUM, 2.5
    )  # fmt: skip
    assert (
        "2.500, update 0.750 (speak by stream.rule=running_sum)"
        in (tmp_path / "in/README.md").read_text()
    )
    by_mean = find_trained(tmp_path / "in", overrides=["stream.rule=threshold"]).config.stream
    assert (by_mean.theta_speak, by_mean.theta_dst) == (None, 0.75)
    by_sum = replace(STREAM, rule=SpeakRule.RUNNING_SUM, theta_speak=2.5)
    assert stream(again, by_sum) == stream(model, by_sum)
    assert 0 < sum(frame.speak for frame in stream(model, by_sum).frames) < 6


def test_the_card_says_that_a_rise_decides(tmp_path: Path) -> None:
    config = settings(base_folder(tmp_path / "base"), TrainMode.FULL)
    run, _ = make_run(tmp_path / "run", config, stream=StreamConfig(rise=0.02, theta_speak=0.5))
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "(not that to speak: by stream.rise=0.02)" in card
