"""Assistants as folders of Hugging Face's layout: out, in, and streamed as before."""

from __future__ import annotations

import json
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from proassist_lit.build import build_model
from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.commands.trained import find_trained
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.exchange import write
from proassist_lit.exchange.description import read_assistant
from proassist_lit.model.as_streamed import as_streamed
from proassist_lit.model.assistant_folder import head_tensors
from proassist_lit.model.backbone import build_tokenizer
from proassist_lit.model.config import Decision, Dtype, ModelConfig, TinyConfig, TrainMode
from proassist_lit.model.lora import has_lora, merged
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.streaming.config import SpeakRule, StreamConfig
from tests.exchange.fakes import LORA, STREAM, base_folder, make_run, settings, shake, stream
from tests.fakes import VISION_SIZE

Captured = pytest.CaptureFixture[str]
TINY = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)


def error(capsys: Captured) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2]  # after bars of the tests' own


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
    (run / ".hydra").mkdir()
    (run / ".hydra/overrides.yaml").write_text("- +experiment=x\n- seed=3\n")
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


def exported(tmp_path: Path, train: TrainMode = TrainMode.FULL) -> Path:
    base = base_folder(tmp_path / "base")
    run, _ = make_run(tmp_path / "run", settings(base, train))
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    return tmp_path / "out"


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


def test_a_tampered_folder_is_refused_with_the_list(tmp_path: Path, capsys: Captured) -> None:
    out = exported(tmp_path)
    tensors, heads = load_file(out / "model.safetensors"), load_file(out / "heads.safetensors")
    norm = tensors.pop("model.norm.weight")
    tensors["model.layers.9.extra"] = norm.clone()
    heads["projector.0.bias"] = heads["projector.0.bias"][:3].clone()
    del heads["dst_head.net.bias"]
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    save_file(heads, out / "heads.safetensors")

    few = [f"data.cache={tmp_path}", *(f"data.toy.num_{s}=1" for s in ("train", "val", "test"))]
    for command in (
        ["import", str(out), str(tmp_path / "in")], ["evaluate", str(out), *few],
    ):  # fmt: skip
        assert main(command) == 2
        message = error(capsys)
        for part in (
            "2 missing: dst_head.net.bias, model.norm.weight",
            "1 left over: model.layers.9.extra",
            "1 of another shape: projector.0.bias: (3,) instead of (16,)",
        ):
            assert part in message
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
def test_a_file_that_is_cut_short_is_refused(name: str, tmp_path: Path, capsys: Captured) -> None:
    out = exported(tmp_path)
    data = (out / name).read_bytes()
    (out / name).write_bytes(data[: len(data) // 2])
    assert main(["import", str(out), str(tmp_path / "in")]) == 2
    assert re.search(rf"{name}: cannot be read as tensors \(SafetensorError", error(capsys))


def test_an_adapter_with_other_tensors_is_refused(tmp_path: Path, capsys: Captured) -> None:
    out = exported(tmp_path, TrainMode.LORA)
    path = out / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    assert main(["import", str(out), str(tmp_path / "in")]) == 2
    assert f"1 missing: {name}" in error(capsys)


def test_what_is_no_assistant_is_told(tmp_path: Path, capsys: Captured) -> None:
    assert main(["import", str(tmp_path), str(tmp_path / "in")]) == 2
    assert "holds neither proassist_lit.json (an exported folder) nor" in error(capsys)
    with pytest.raises(CheckpointError, match=r"holds no proassist_lit\.json, so it is no assist"):
        read_assistant(tmp_path)
    (tmp_path / "proassist_lit.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match=r"has format 99, and this version reads 1"):
        read_assistant(tmp_path)
    (tmp_path / "proassist_lit.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"proassist_lit\.json: cannot be read"):
        read_assistant(tmp_path)
    (tmp_path / "proassist_lit.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"is no JSON object"):
        read_assistant(tmp_path)


def test_a_checkpoint_without_a_projector_is_no_checkpoint(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    torch.save({"state_dict": {}}, run / "checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match=r"projector\.0\.weight is missing"):
        load_assistant(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"there is no such checkpoint"):
        load_assistant(run)


def test_an_adapter_that_is_none_of_ours_is_told(tmp_path: Path, capsys: Captured) -> None:
    out = exported(tmp_path, TrainMode.LORA)
    path = out / "adapter_config.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path; write there"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA can be read"),
        ({"target_modules": ["nowhere"]}, "does not fit the backbone: "),
    ):
        path.write_text(json.dumps(good | change))
        assert main(["import", str(out), str(tmp_path / "in")]) == 2
        assert message in error(capsys)
