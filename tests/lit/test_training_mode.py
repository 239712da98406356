"""What is trained is in training mode, however it came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from proassist_lit.build import build_core
from proassist_lit.lit.build import build_datamodule, build_module
from proassist_lit.model import training_layers
from proassist_lit.model.training_layers import GradientCheckpointing
from tests.lit.resuming import config

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.mark.road
def test_layers_that_come_in_evaluation_mode_are_trained_as_the_run_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def checkpoint(run: Any, *args: Any, **options: Any) -> Any:
        kept.append(run)
        return run(*args)

    monkeypatch.setattr(training_layers, "checkpoint", checkpoint)
    settings = config(tmp_path / "data")
    trainer = replace(settings.trainer, gradient_checkpointing=GradientCheckpointing.FULL)
    settings = replace(settings, trainer=trainer)
    core = build_core(settings)
    core.model.eval()  # as Hugging Face's from_pretrained leaves what it reads
    module = build_module(settings, core, 1)
    L.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False, limit_val_batches=0,
    ).fit(module, datamodule=build_datamodule(settings, core))  # fmt: skip

    assert len(kept) >= len(core.model.lm.get_decoder().layers)
    assert all(part.training for part in module.modules())
