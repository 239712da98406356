"""Folders that were tampered with, cut short, or hold no assistant are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.errors import CheckpointError
from proassist_lit.exchange.description import read_assistant
from proassist_lit.model.config import ModelConfig, TrainMode
from tests.exchange.fakes import TINY, Captured, error, exported, make_run


def test_a_tampered_folder_is_refused_with_the_list(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.exchange.fakes.VISION_SIZE", 768)  # of the data that it meets
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
