"""Training in numbers of other types than 32 bits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.lit.resuming import config, curves, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


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
