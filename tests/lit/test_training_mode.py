"""What is trained is in training mode, however it came, and whoever asks for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from torch import Tensor

from proassist_lit.build import build_core
from proassist_lit.lit import batch_size_search, module
from proassist_lit.lit.batch_size_search import with_found_batch_size
from proassist_lit.lit.build import build_datamodule, build_module
from proassist_lit.lit.lr_search import with_found_lr
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model import training_layers
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.run_directory import RunDirectory
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
    found = build_module(settings, core, 1)
    L.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False, limit_val_batches=0,
    ).fit(found, datamodule=build_datamodule(settings, core))  # fmt: skip

    assert len(kept) >= len(core.model.lm.get_decoder().layers)
    assert all(part.training for part in found.modules())


@pytest.mark.parametrize("search", ["find_lr", "find_batch_size"])
def test_searches_train_as_the_run_will(
    search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused: list[Any] = []
    seen: list[tuple[bool, Any]] = []

    def step(self: AssistantModule, *_: Any) -> Tensor:
        seen.append((all(part.training for part in self.modules()), fused[-1:]))
        raise KeyboardInterrupt  # it has seen enough

    monkeypatch.setattr(module, "fuse", fused.append)
    monkeypatch.setattr(AssistantModule, "training_step", step)
    monkeypatch.setattr(batch_size_search, "check_has_limit", lambda _: None)
    settings, run = config(tmp_path / "data"), RunDirectory(tmp_path / "run")
    settings = replace(settings, trainer=replace(settings.trainer, find_batch_size=2))
    core = build_core(settings)
    core.model.eval()
    searches = {
        "find_lr": partial(with_found_lr, settings, core, build_datamodule(settings, core)),
        "find_batch_size": partial(with_found_batch_size, settings, core),
    }
    with pytest.raises(KeyboardInterrupt):
        searches[search](run, resumes=False)

    assert seen == [(True, [core.model.lm])]
