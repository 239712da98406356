"""Training in numbers of other types than 32 bits."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from proassist_lit.lit.build import build_trainer
from proassist_lit.lit.precision import DoubleWeights, HalfWeights
from proassist_lit.run_directory import RunDirectory
from tests.lit.resuming import config, curves, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.mark.parametrize(
    ("precision", "plugin", "name"),
    [
        ("16-true", HalfWeights, "16-true"),
        ("bf16-true", HalfWeights, "bf16-true"),
        ("bf16-mixed", MixedPrecision, "bf16-mixed"),
        ("16-mixed", MixedPrecision, "bf16-mixed"),  # what Lightning makes of it on a CPU
        ("16", MixedPrecision, "bf16-mixed"),
        ("64-true", DoubleWeights, "64-true"),
        ("32-true", Precision, "32-true"),
    ],
)
def test_the_trainer_is_built_with_the_precision(
    precision: str, plugin: type[Precision], name: str, tmp_path: Path
) -> None:
    settings, run = config(tmp_path / "data", precision=precision), RunDirectory(tmp_path / "run")
    logs: Any = SimpleNamespace(loggers=[], identity=L.Callback())
    evaluation: Any = L.Callback()
    trainer = build_trainer(settings, run, evaluation, logs)
    assert type(trainer.precision_plugin) is plugin
    assert trainer.precision == name
    dtypes = {"16-true": torch.float16, "bf16-true": torch.bfloat16}
    if plugin is HalfWeights:
        module = trainer.precision_plugin.convert_module(torch.nn.Linear(2, 2))
        assert module.weight.dtype == dtypes[precision]


@pytest.mark.road
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("64-true", torch.float64), ("64", torch.float64), ("bf16-true", torch.bfloat16)],
)
def test_weights_have_the_type_of_the_precision(
    precision: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    weights = fit(config(tmp_path / "data", steps=1, precision=precision), tmp_path / "run")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    (loss,) = [float(row["train/loss"]) for row in curves(tmp_path / "run") if "train/loss" in row]
    assert math.isfinite(loss)
