"""The learning rate is looked for before training, and nothing else is changed by that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.tuner.lr_finder import _LRFinder
from PIL import Image

from proassist_lit.build import build_core
from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError, TrainingError
from proassist_lit.lit import lr_search
from proassist_lit.lit.build import build_datamodule
from proassist_lit.lit.lr_search import with_found_lr
from proassist_lit.lit.module import AssistantModule
from proassist_lit.run_directory import RunDirectory
from tests.lit.resuming import config

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def looked_for(settings: RunConfig, folder: Path) -> tuple[RunConfig, Any, Any]:
    """The new settings, and the weights before and after."""
    core = build_core(settings)
    before = {name: tensor.clone() for name, tensor in core.model.state_dict().items()}
    datamodule, run = build_datamodule(settings, core), RunDirectory(folder)
    found = with_found_lr(settings, core, datamodule, run, resumes=False)
    return found, before, core.model.state_dict()


@pytest.mark.road
def test_rate_is_found_and_the_model_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_search, "NUM_STEPS", 24)
    validated: list[Any] = []
    monkeypatch.setattr(AssistantModule, "validation_step", lambda *args: validated.append(args))
    settings = config(tmp_path / "data")
    found, before, after = looked_for(settings, tmp_path / "run")
    assert validated == []

    lr = found.trainer.optimizer.lr
    assert 1e-7 < lr < 1
    assert lr != settings.trainer.optimizer.lr
    same = replace(found.trainer, optimizer=settings.trainer.optimizer)
    assert replace(found, trainer=same) == settings
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"learning_rate.json", "lr_search.png"}
    nothing: Any = None
    run = RunDirectory(tmp_path / "run")
    assert with_found_lr(settings, nothing, nothing, run, resumes=True) == found
    with Image.open(tmp_path / "run/lr_search.png") as picture:
        assert picture.width > 100


def test_ctrl_c_while_it_looks_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(AssistantModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        looked_for(config(tmp_path / "data"), tmp_path / "run")


@pytest.mark.road
@pytest.mark.parametrize("workers", [0, 1])
def test_training_begins_with_the_batches_it_had_without_the_search(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_search, "NUM_STEPS", 24)
    settings = config(tmp_path / "data", workers=workers)
    core = build_core(settings)
    want = [b.input_ids for b in build_datamodule(settings, core).train_dataloader()]
    datamodule = build_datamodule(settings, core)
    with_found_lr(settings, core, datamodule, RunDirectory(tmp_path / "run"), resumes=False)
    got = [batch.input_ids for batch in datamodule.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.road
def test_losses_that_suggest_nothing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_search, "NUM_STEPS", 3)
    monkeypatch.setattr(_LRFinder, "suggestion", lambda *_: None)
    with pytest.raises(TrainingError, match=r"find_lr: too few losses to suggest a learning rate"):
        looked_for(config(tmp_path / "data"), tmp_path / "run")


def test_several_devices_are_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings = replace(settings, trainer=replace(settings.trainer, devices="auto"))
    nothing: Any = None
    with pytest.raises(
        ConfigError, match=r"one device, but trainer\.devices=auto, .*; look on one"
    ):
        with_found_lr(settings, nothing, nothing, RunDirectory(tmp_path / "run"), resumes=False)


def test_a_rate_that_was_found_and_is_gone_is_named(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(ConfigError, match=r"learning_rate\.json is not there.*find_lr=false"):
        with_found_lr(
            config(tmp_path), nothing, nothing, RunDirectory(tmp_path / "run"), resumes=True
        )
