"""Checkpoints in the layout of ProAssist that cannot be read, and runs that it has no names for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from proassist_lit.commands.main import main
from proassist_lit.data.config import DataConfig
from proassist_lit.model.config import Decision, ModelConfig, TinyConfig, TrainMode
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from tests.exchange.checkpoints import (
    config_json,
    full_checkpoint,
    lora_checkpoint,
    split_checkpoint,
)
from tests.exchange.fakes import base_folder, make_run, settings

Captured = pytest.CaptureFixture[str]


def test_every_fault_is_in_one_list(tmp_path: Path, capsys: Captured) -> None:
    folder, weights, beside = full_checkpoint(tmp_path, "linear")
    norm = weights.pop("model.norm.weight")
    save_file(
        weights | {"model.extra": norm, "model.layers.0.input_layernorm.weight": norm[:4].clone()},
        folder / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    del beside["mm_projector.2.bias"]
    torch.save(beside | {"mm_projector.9": norm}, folder / "mm_projector.bin")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    for part in (
        "1 missing: model.norm.weight", "1 left over: model.extra",
        "1 of another shape: model.layers.0.input_layernorm.weight: (4,) instead of (16,)",
        "1 missing: projector.2.bias; 1 left over: projector.9",
    ):  # fmt: skip
        assert part in message


def test_faults_of_an_adapter_and_of_the_heads_are_in_one_list(
    tmp_path: Path, capsys: Captured
) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    for round_, drop in (("", "binary_decision_head"), ("adapter_0", "v_proj.lora_B")):
        path = folder / round_ / "adapter_model.safetensors"
        tensors = load_file(path)
        name = next(name for name in tensors if drop in name)
        save_file({n: t for n, t in tensors.items() if n != name}, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert "adapter_0: its tensors are not those" in message
    assert "self_attn.v_proj.lora_B.weight" in message
    assert "1 missing: speak_head.net." in message


def test_an_earlier_round_with_another_shape_is_refused(tmp_path: Path, capsys: Captured) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    path = folder / "adapter_1/adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[name] = tensors[name][:, :3].clone()
    save_file(tensors, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert "adapter_1: its tensors" in message
    assert "q_proj.lora_A.weight: (2, 3) instead of (2, 16)" in message


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (full_checkpoint, "model.safetensors"), (lora_checkpoint, "adapter_model.safetensors"),
        (lora_checkpoint, "adapter_0/adapter_model.safetensors"),
        (split_checkpoint, "mm_projector.bin"),
    ],
)  # fmt: skip
def test_a_file_that_is_cut_short_is_refused(
    make: Any, name: str, tmp_path: Path, capsys: Captured
) -> None:
    folder = make(tmp_path, "linear")[0]
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert f"{Path(name).name}: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "in").exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("owned",)


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, {"a": "text"}, {"a": [1]}])
def test_a_pickle_that_holds_more_than_tensors_is_refused(
    content: object, tmp_path: Path, capsys: Captured
) -> None:
    folder, _, _ = full_checkpoint(tmp_path, "linear")
    torch.save(content, folder / "mm_projector.bin")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    out, err = capsys.readouterr()
    assert "owned" not in out
    assert "mm_projector.bin: cannot be read as tensors" in err
    assert not (tmp_path / "in").exists()


def test_what_they_have_no_name_for_is_refused(tmp_path: Path, capsys: Captured) -> None:
    tiny = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=tiny))
    out = str(tmp_path / "out")
    assert main(["export", str(run), out, "--layout", "proassist"]) == 2
    assert "model.chat is compact, and must be dst_ext. Or write" in capsys.readouterr().err

    base = base_folder(tmp_path / "base")
    run, _ = make_run(tmp_path / "run2", settings(base, TrainMode.LORA, "dst_ext"))
    assert main(["export", str(run), out, "--layout", "proassist"]) == 2
    assert "rows of new tokens were trained beside the adapter; add" in capsys.readouterr().err


def test_two_heads_to_speak_are_none_of_theirs(tmp_path: Path, capsys: Captured) -> None:
    config = replace(
        settings(base_folder(tmp_path / "base"), TrainMode.FULL),
        dst=False, decision=Decision.INFORMATIVE_RELEVANCE,
    )  # fmt: skip
    run, _ = make_run(
        tmp_path / "run", config, objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN)
    )
    assert main(["export", str(run), str(tmp_path / "out"), "--layout", "proassist"]) == 2
    assert "is informative_relevance, two heads where theirs has one. Or" in capsys.readouterr().err


def test_checkpoints_that_cannot_be_streamed_say_why(tmp_path: Path, capsys: Captured) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    config_json(folder, tmp_path / "base", use_img_cls_token=False)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "without the class token of a frame" in capsys.readouterr().err
    config_json(folder, tmp_path / "base", llm_pretrained="")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "names no llm_pretrained; give its backbone with --base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "num_tokens", "said"),
    [
        ({}, 5, "data.num_tokens_per_img is 5, and must be 1 with model.dst"),
        ({"separator": "EOS"}, 1, "model.separator is 'EOS', and must be empty with model.dst"),
        (
            {"decision": Decision.SILENT_TOKEN}, 1,
            "model.decision is silent_token, which theirs reads as opening_token with model.dst",
        ),
    ],
)  # fmt: skip
def test_what_the_extension_cannot_be_told_is_refused(
    model: dict[str, Any], num_tokens: int, said: str, tmp_path: Path, capsys: Captured
) -> None:
    base = base_folder(tmp_path / "base", chat="dst_ext")
    config = replace(settings(base, TrainMode.FULL, "dst_ext"), **model)
    by_head = config.decision is Decision.HEAD
    kind = ObjectiveKind.PER_TOKEN if by_head else ObjectiveKind.TOKEN_PROB
    run, _ = make_run(
        tmp_path / "run", config, objective=ObjectiveConfig(kind=kind),
        data=DataConfig(num_tokens_per_img=num_tokens),
    )  # fmt: skip
    assert main(["export", str(run), str(tmp_path / "out"), "--layout", "proassist"]) == 2
    assert f"--layout proassist: {said}. Or write it with" in capsys.readouterr().err
