"""A run whose loss is no number, or jumps, says what one needs to know and keeps no bad state."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from proassist_lit.errors import ConfigError, TrainingError
from proassist_lit.lit import loss_guard
from proassist_lit.lit.loss_guard import LEAST, WINDOW, LossGuard
from proassist_lit.lit.module import AssistantModule
from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import TrainerConfig
from proassist_lit.types import Batch
from tests.lit.resuming import config, fit, stop_at

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


class Loop:
    """Feeds a guard as a Trainer does."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, device: str = "cpu", **changed: Any
    ) -> None:
        settings = {"spike_factor": 5.0, "read_every_steps": 4, "warmup_steps": 0}
        self.guard = LossGuard(RunDirectory(folder), **{**settings, **changed})
        self.decisions: list[bool] = []
        self.trainer: Any = SimpleNamespace(
            global_step=0, current_epoch=0, accumulate_grad_batches=1,
            strategy=SimpleNamespace(
                root_device=torch.device(device), reduce_boolean_decision=self.decide
            ),
            precision_plugin=SimpleNamespace(scaler=None),
        )  # fmt: skip
        self.logged: dict[str, float] = {}
        self.module: Any = SimpleNamespace(
            parameters=lambda: [self.weight],
            log=lambda name, value: self.logged.update({name: float(value)}),
        )
        self.weight = torch.nn.Parameter(torch.zeros(2))
        monkeypatch.setattr(loss_guard, "_records", lambda *_: ["kitchen/0/user (a.jsonl:3)"])

    def decide(self, decision: bool, *, all: bool) -> bool:
        assert not all
        self.decisions.append(decision)
        return decision

    def step(self, loss: float, gradient: float = 1.0) -> None:
        self.guard.on_train_batch_start(self.trainer, self.module, None, self.trainer.global_step)
        self.weight.grad = torch.tensor([gradient, 0.0])
        self.guard.on_before_optimizer_step(self.trainer, self.module, None)
        batch_idx, self.trainer.global_step = self.trainer.global_step, self.trainer.global_step + 1
        outputs = {"loss": torch.tensor(loss)}
        self.guard.on_train_batch_end(self.trainer, self.module, outputs, None, batch_idx)


def settled(loop: Loop) -> Loop:
    for i in range(WINDOW):
        loop.step((1.0, 2.0, 9.0)[i % 3])
    return loop


def test_loss_that_is_no_number_is_named_with_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    loop.step(2.0)
    loop.step(3.0)
    said = (
        r"^training stopped at step 2: the loss of the batch is nan; the median of the last 2 is "
        r"2\.5\. Batch 2 of epoch 0 holds kitchen/0/user \(a\.jsonl:3\)\. No checkpoint was "
        r"written yet; begin anew with a lower trainer\.optimizer\.lr"
    )
    with pytest.raises(TrainingError, match=said):
        loop.step(float("nan"))


def test_gradient_that_is_no_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    loop.step(2.0, gradient=3.0)
    assert loop.logged == {"train/gradient_norm": 3.0}
    said = r"step 1: the norm of the gradient is inf, after a loss of 2\.5; the median"
    with pytest.raises(TrainingError, match=said):
        loop.step(2.5, gradient=float("inf"))


def test_gradient_is_left_to_a_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path, monkeypatch)
    loop.trainer.precision_plugin.scaler = object()
    loop.step(2.0, gradient=float("inf"))
    loop.step(2.0)


def test_spike_is_measured_by_the_median(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = settled(Loop(tmp_path, monkeypatch))
    loop.step(9.9)
    said = (
        r"step 101: the loss of the batch is 10\.1, above trainer\.spike_factor=5 times its level"
    )
    with pytest.raises(TrainingError, match=said):
        loop.step(10.1)


def test_spike_is_above_what_training_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, later = Loop(tmp_path, monkeypatch), Loop(tmp_path, monkeypatch)
    for step in range(LEAST + WINDOW):
        loop.step(0.8 if step < LEAST else 0.002)
    loop.step(0.75)  # 375 times the median: a batch that is rare
    checkpoint: dict[str, Any] = {}
    loop.guard.on_save_checkpoint(loop.trainer, loop.module, checkpoint)
    later.guard.on_load_checkpoint(later.trainer, later.module, checkpoint)
    for one in (loop, later):
        with pytest.raises(TrainingError, match=r"5 times its level and above 0\.8, which train"):
            one.step(0.85)


@pytest.mark.parametrize("changed", [{"spike_factor": 0.0}, {"warmup_steps": 200}])
def test_spike_is_let_pass(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(Loop(tmp_path, monkeypatch, **changed)).step(1e6)


def test_spike_is_let_pass_before_there_is_a_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    for loss in (*[1.0] * (LEAST - 1), 100.0):
        loop.step(loss)
    with pytest.raises(TrainingError, match=f"step {LEAST}: the loss of the batch is 100, above"):
        loop.step(100.0)


def test_device_is_read_now_and_then_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch, device="cuda")
    for loss in (1.0, float("inf"), 1.0):
        loop.step(loss)
    assert loop.decisions == []
    with pytest.raises(TrainingError, match=r"step 1: .* inf; .* last 1 .*Batch 1 of epoch 0"):
        loop.step(1.0)


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_end", "on_save_checkpoint"])
def test_device_is_read_before_anything_is_made_of_its_state(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch, device="cuda")
    loop.step(float("nan"))
    more = ({},) if hook == "on_save_checkpoint" else ()
    with pytest.raises(TrainingError, match=r"step 0: the loss of the batch is nan\. Batch"):
        getattr(loop.guard, hook)(loop.trainer, loop.module, *more)


def test_fault_of_another_process_stops_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    loop.trainer.strategy.reduce_boolean_decision = lambda decision, *, all: True
    with pytest.raises(TrainingError, match="stopped at step 0: another process met a loss"):
        loop.step(1.0)


def test_level_goes_with_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Any] = {}
    loop = settled(Loop(tmp_path, monkeypatch))
    loop.guard.on_save_checkpoint(loop.trainer, loop.module, saved)
    resumed = Loop(tmp_path, monkeypatch)
    resumed.guard.on_load_checkpoint(resumed.trainer, resumed.module, saved)
    with pytest.raises(TrainingError, match=r"step 0: the loss of the batch is 10\.1, above"):
        resumed.step(10.1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_on_val_that_is_no_number_stops_training(
    loss: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    loop.step(2.0)
    loop.trainer.callback_metrics = {"val/loss": torch.tensor(2.5)}
    loop.guard.on_validation_end(loop.trainer, loop.module)
    loop.trainer.callback_metrics = {"val/loss": torch.tensor(loss)}
    with pytest.raises(TrainingError, match=rf"step 1: the loss on val is {loss}, .*No checkpoint"):
        loop.guard.on_validation_end(loop.trainer, loop.module)


def test_checkpoint_that_cannot_be_read_is_not_called_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path, monkeypatch)
    last = RunDirectory(tmp_path).last_checkpoint
    last.parent.mkdir()
    last.write_bytes(b"cut off")
    said = r"There is none to go on from \(.*last\.ckpt: cannot be read .*\); begin anew"
    with pytest.raises(TrainingError, match=said):
        loop.step(math.nan)


def test_spike_factor_that_every_loss_exceeds_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"spike_factor must be above 1, or 0 for never, got 0\.5"
    ):
        TrainerConfig(spike_factor=0.5)


def poison(patch: pytest.MonkeyPatch, step: int, held: list[str]) -> None:
    """Make the loss no number at ``step``; leave in ``held`` what the batch really holds."""
    train = AssistantModule.training_step

    def poisoned(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        loss = train(self, batch, batch_idx)
        if self.global_step != step:
            return loss
        examples = cast(Any, self.trainer).datamodule._examples["train"]
        held[:] = [
            examples.name(i)
            for i, sequence in enumerate(examples.sequences)
            if torch.equal(sequence.input_ids, batch.input_ids[0])
        ]
        return loss * float("nan")

    patch.setattr(AssistantModule, "training_step", poisoned)


def power_cut() -> None:
    raise RuntimeError("power cut")


@pytest.mark.road
@pytest.mark.parametrize("resumed", [False, True])
def test_bad_run_names_its_batch_and_goes_on_from_its_last_good_state(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    settings, folder = config(tmp_path / "data", save_every=2), tmp_path / "run"
    expected = fit(settings, tmp_path / "whole")
    if resumed:  # in the middle of an epoch
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, 2, power_cut)
            with pytest.raises(RuntimeError, match="power cut"):
                fit(settings, folder)
    held: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, 3, held)
        with pytest.raises(TrainingError) as caught:
            fit(settings, folder)

    said = str(caught.value)
    (name,) = held
    assert f"Batch 3 of epoch 0 holds {name}. The last good checkpoint is" in said
    assert f"{folder}/checkpoints/last.ckpt (step " in said
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert 2 <= last["global_step"] <= 3
    assert all(t.isfinite().all() for t in last["state_dict"].values())
    weights = fit(settings, folder)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


@pytest.mark.road
def test_interrupt_after_a_bad_step_that_nobody_read_keeps_the_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    end, train = LossGuard.on_train_batch_end, AssistantModule.training_step

    def unread(self: LossGuard, *args: Any) -> None:  # as on a device
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "_read", lambda _: None)
            end(self, *args)

    def interrupted(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step == 4:
            raise KeyboardInterrupt
        return train(self, batch, batch_idx) * (1.0 if self.global_step < 3 else float("nan"))

    monkeypatch.setattr(LossGuard, "on_train_batch_end", unread)
    monkeypatch.setattr(AssistantModule, "training_step", interrupted)
    with pytest.raises(SystemExit):
        fit(config(tmp_path / "data", save_every=0), tmp_path / "run")

    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert "training stopped at step 3: the loss of the batch is nan" in capsys.readouterr().err
