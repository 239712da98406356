"""Training ends when validation has not become better for a while, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.patience import Patience, early_end
from proassist_lit.lit.run import train
from proassist_lit.trainer_config import TrainerConfig
from tests.lit import resuming, test_run
from tests.lit.resuming import fit, same

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def validate(patience: Patience, *losses: float) -> Any:
    """What a Trainer looks like after validations with these losses."""
    trainer: Any = SimpleNamespace(
        sanity_checking=False, state=SimpleNamespace(fn="fit"), is_global_zero=True,
        should_stop=False, fast_dev_run=False, current_epoch=0, global_step=6,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, *, all: decision),
        early_stopping_callback=patience,
    )  # fmt: skip
    for loss in losses:
        trainer.callback_metrics = {"val/loss": torch.tensor(loss)}
        patience.on_validation_end(trainer, None)  # type: ignore[arg-type]
    return trainer


def test_validations_without_a_lower_loss_are_counted() -> None:
    assert not validate(Patience(2), 3.0, 3.0, 2.5, 2.6).should_stop
    assert validate(Patience(2), 3.0, 2.5, 2.6, 2.5).should_stop


def test_a_loss_that_is_no_number_ends_nothing_in_silence() -> None:
    assert not validate(Patience(2), 3.0, float("nan")).should_stop


def test_the_end_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    patience = Patience(2)
    trainer = validate(patience, 2.5, 2.6, 2.7)
    patience.on_train_end(trainer, None)  # type: ignore[arg-type]
    said = " ".join(capsys.readouterr().out.split())
    why = "val/loss was not below 2.5 in 2 validations (trainer.patience=2)"
    assert said == f"Training ended at step 6: {why}."
    assert early_end(trainer) == why


def test_another_end_is_not_explained(capsys: pytest.CaptureFixture[str]) -> None:
    patience = Patience(2)
    trainer = validate(patience, 2.5, 2.6)
    patience.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == early_end(trainer) == ""
    assert early_end(SimpleNamespace(early_stopping_callback=None)) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(("patience", "stops"), [(2, True), (3, False)])
def test_run_that_ended_goes_on_with_more_patience_only(patience: int, stops: bool) -> None:
    before = Patience(2)
    validate(before, 2.5, 2.6, 2.7)
    resumed = Patience(patience)
    resumed.load_state_dict(before.state_dict())
    trainer = validate(resumed)
    resumed.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop is stops
    assert validate(resumed, 2.6).should_stop


def test_negative_patience_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.patience must be >= 0, got -1; 0 for no"):
        TrainerConfig(patience=-1)


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def step(self: AssistantModule, batch: object, batch_idx: int) -> None:
        self.log("val/loss", float(self.global_step), batch_size=1)

    monkeypatch.setattr(AssistantModule, "validation_step", step)


@pytest.mark.road
@pytest.mark.usefixtures("rising")
def test_run_ends_early_and_does_not_train_on_when_started_again(tmp_path: Path) -> None:
    settings = resuming.config(tmp_path / "data", steps=12)
    settings = replace(settings, trainer=replace(settings.trainer, patience=1))
    path = tmp_path / "run/checkpoints/last.ckpt"
    weights = fit(settings, tmp_path / "run")
    before = path.read_bytes()
    assert torch.load(path, weights_only=True)["global_step"] == 6  # validations at 3 and 6

    assert same(fit(settings, tmp_path / "run"), weights)
    assert path.read_bytes() == before


@pytest.mark.road
@pytest.mark.usefixtures("rising")
def test_run_that_ends_early_is_evaluated_and_reported(tmp_path: Path) -> None:
    settings = test_run.config(tmp_path, steps=20)
    settings = replace(settings, trainer=replace(settings.trainer, patience=1))
    train(settings, tmp_path / "run")
    assert "test/utterance_f1" in json.loads((tmp_path / "run/metrics.json").read_text())
    report = (tmp_path / "run/report.html").read_text()
    assert "at step 4: val/loss was not below 2 in 1 validations" in report
