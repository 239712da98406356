"""The gradient that moves the weights is no longer than asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lit.resuming import config, curves, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here

CLIP = 0.25


@pytest.mark.road
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_norm_of_what_is_applied_is_limited(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    applied: list[float] = []
    update = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, closure: Any) -> Any:
        loss = closure()  # forward, backward and what is done to the gradient
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        applied.append(
            float(torch.nn.utils.get_total_norm([g for g in gradients if g is not None]))
        )
        update(self)
        return loss

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    norms: dict[float, list[float]] = {}
    for clip in (CLIP, 0.0):
        settings = config(
            tmp_path / "data", steps=2, accumulate=accumulate, gradient_clip=clip, save_every=0
        )
        fit(settings, tmp_path / f"clip{clip}")
        rows = curves(tmp_path / f"clip{clip}")
        logged = [float(row["train/gradient_norm"]) for row in rows if "train/gradient_norm" in row]
        assert min(logged) > 2 * CLIP  # of the whole gradient, before it is cut
        want = [CLIP] * 2 if clip else logged
        assert applied == pytest.approx(want, rel=1e-3)
        norms[clip] = logged
        applied.clear()
    assert norms[CLIP][0] == norms[0.0][0]  # the same batches
