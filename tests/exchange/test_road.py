"""Low-rank training from data to report, resumed, evaluated again, out, in, and trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from proassist_lit.commands.main import main
from proassist_lit.config_schema import write_config
from proassist_lit.errors import ConfigError
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.run import train
from proassist_lit.model.config import ModelConfig, TrainMode
from tests.exchange.fakes import LORA, base_folder
from tests.lit.test_run import config
from tests.model.test_four_bits import needs_four_bits

pytestmark = [pytest.mark.road, pytest.mark.filterwarnings("ignore")]  # of Lightning


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def metrics(folder: Path) -> dict[str, float | str]:
    read: dict[str, float | str] = json.loads((folder / "metrics.json").read_text())
    return read


def streams(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("streams/*.json")}


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        pytest.param(TrainMode.LORA, [], id="lora"),
        pytest.param(TrainMode.QLORA, ["--merge"], id="four_bits", marks=needs_four_bits),
    ],
)
def test_a_low_rank_run_goes_the_whole_road(
    mode: TrainMode, how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_folder(tmp_path / "base", tied=True)
    small = replace(
        config(tmp_path),
        model=ModelConfig(backbone=str(base), chat="compact", train=mode, lora=LORA),
    )
    run = tmp_path / "run"
    write_config(small, run / "config.yaml")
    train(small, run)

    shown = capsys.readouterr().out
    assert "low-rank additions" in shown
    assert "rows of new tokens" in shown
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not any("mlp.up_proj.base_layer" in name or "norm" in name for name in state)
    held = {tuple(tensor.shape) for tensor in load_file(base / "model.safetensors").values()}
    assert not held & {tuple(t.shape) for n, t in state.items() if n.startswith("model.lm")}

    assert main(["evaluate", str(run), "--out", str(tmp_path / "again")]) == 0
    again = metrics(tmp_path / "again")
    assert {n: v for n, v in metrics(run).items() if not n.startswith("best/")} == again
    assert main(["export", str(run), str(tmp_path / "out"), *how]) == 0
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "in")]) == 0
    # The number of thresholds that are tried in one pass changes the last digits.
    given = [f"stream.{name}={again[f'test/{name}']}" for name in ("theta_speak", "theta_dst")]
    assert main(["evaluate", str(run), *given, "--out", str(tmp_path / "given")]) == 0
    for name in ("out", "in"):
        out = tmp_path / f"{name}_evaluated"
        assert main(["evaluate", str(tmp_path / name), "--out", str(out)]) == 0
        assert streams(out) == streams(tmp_path / "given")

    assert main(["export", str(run), str(tmp_path / "adapter")]) == 0
    card = (tmp_path / "adapter/README.md").read_text()
    assert ("trained over it in 4 bits" in card) == (mode is TrainMode.QLORA)

    further = replace(
        config(tmp_path, steps=2), model=replace(small.model, init_from=str(tmp_path / "in"))
    )
    write_config(further, tmp_path / "further/config.yaml")
    train(further, tmp_path / "further")
    assert main(["evaluate", str(tmp_path / "further"), "--out", str(tmp_path / "f2")]) == 0
    assert streams(tmp_path / "f2") == streams(tmp_path / "further")


def test_a_low_rank_run_that_stopped_goes_on_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base")
    model = ModelConfig(backbone=str(base), chat="compact", train=TrainMode.LORA, lora=LORA)
    small, run = replace(config(tmp_path), model=model), tmp_path / "run"
    step = AssistantModule.training_step
    states: list[dict[str, torch.Tensor]] = []

    def interrupted(self: AssistantModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            states.append({name: t.clone() for name, t in self.state_dict().items()})
            if len(states) == 1:
                raise KeyboardInterrupt
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(AssistantModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small, run)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    train(replace(small, resume="auto"), run)

    before, after = states[0], states[1]
    assert set(before) == set(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved.items())


def test_a_run_whose_head_would_not_train_is_refused(tmp_path: Path) -> None:
    small = config(tmp_path)
    small = replace(small, objective=replace(small.objective, speaking_binary_weight=0.0))
    with pytest.raises(ConfigError, match=r"speak_head would not train, because objective\.speak"):
        train(small, tmp_path / "run")
