"""The best state stays the best, wherever the directory of the run lies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.lit.module import AssistantModule
from tests.lit.resuming import VAL_EVERY, config, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.mark.road
@pytest.mark.parametrize("place", ["run", "elsewhere"])
def test_a_worse_state_does_not_replace_the_best(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(config(tmp_path / "data", steps=VAL_EVERY), tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    (key,) = [key for key in saved["callbacks"] if key.startswith("ModelCheckpoint")]
    state, never = saved["callbacks"][key], torch.tensor(-1.0)  # no loss is as low
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], never)
    state["best_model_score"] = state["kth_value"] = never
    torch.save(saved, last)
    best = (tmp_path / "run/checkpoints/best.ckpt").read_bytes()
    if place != "run":
        shutil.move(tmp_path / "run", tmp_path / place)

    fit(config(tmp_path / "data", steps=2 * VAL_EVERY), tmp_path / place)

    assert (tmp_path / place / "checkpoints/best.ckpt").read_bytes() == best
    went_on = torch.load(tmp_path / place / "checkpoints/last.ckpt", weights_only=True)
    folder = Path(went_on["callbacks"][key]["best_model_path"]).parent
    assert folder == (tmp_path / place / "checkpoints").resolve()


@pytest.mark.road
@pytest.mark.parametrize("place", ["run", "elsewhere"])
def test_as_many_of_the_best_are_kept_as_asked_for(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.5])
    log = AssistantModule.log

    def given(self: AssistantModule, name: str, value: torch.Tensor, **how: Any) -> None:
        is_it = name == "val/loss"
        log(self, name, torch.tensor(next(losses)) if is_it else value, **how)

    monkeypatch.setattr(AssistantModule, "log", given)

    def train(folder: Path, validations: int) -> dict[str, int]:
        """Steps of the checkpoints that are left."""
        settings = config(tmp_path / "data", steps=validations * VAL_EVERY)
        fit(replace(settings, trainer=replace(settings.trainer, save_top_k=2)), folder)
        return {
            path.name: torch.load(path, weights_only=True)["global_step"] // VAL_EVERY
            for path in sorted((folder / "checkpoints").iterdir())
        }

    def names(*validations: int) -> dict[str, int]:
        return {f"step-{number * VAL_EVERY}.ckpt": number for number in validations}

    assert train(tmp_path / "run", 3) == {"best.ckpt": 2, "last.ckpt": 3} | names(2, 3)
    if place != "run":
        shutil.move(tmp_path / "run", tmp_path / place)
    assert train(tmp_path / place, 4) == {"best.ckpt": 2, "last.ckpt": 4} | names(2, 3)
    assert train(tmp_path / place, 5) == {"best.ckpt": 5, "last.ckpt": 5} | names(2, 5)
