"""The best state stays the best, wherever the directory of the run lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

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
