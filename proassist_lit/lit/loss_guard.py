"""Stops training when loss or gradient are no numbers any more, or when the loss jumps."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from proassist_lit.errors import CheckpointError, TrainingError
from proassist_lit.going_on import go_on_command
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.model.checkpoint import read_step
from proassist_lit.run_directory import RunDirectory

WINDOW = 100
"""Batches whose median loss is the level that a spike is measured by."""

LEAST = 20
"""Batches that make a level; the first so many are what training began with."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A batch that was trained on; its numbers are still on the device."""

    step: int
    epoch: int
    batch_idx: int
    loss: Tensor
    gradient_norm: Tensor | None  # of the update that came after it


class LossGuard(L.Callback):
    """Looks at the loss of every batch and at the gradient of every update.

    On a CPU at once; elsewhere the numbers are left on the device and read now and then together,
    since reading waits for the device, but always before validation and before a checkpoint is
    written: none is ever made of a bad state. With 16-mixed precision the gradient is left to the
    scaler, which skips updates that are no numbers.

    Args:
        run: whose checkpoints are there to go on from.
        spike_factor: a loss above so many times the median of the last ``WINDOW`` batches stops
            training, once there are some and the rate has risen; 0 for never. It must also be
            above the loss that training began with: where nearly all batches are learnt by heart,
            a rare one may well cost many times the median.
        read_every_steps: optimizer steps between two readings.
        warmup_steps: steps over which the rate rises.
    """

    def __init__(
        self, run: RunDirectory, *, spike_factor: float, read_every_steps: int, warmup_steps: int
    ) -> None:
        self._run, self._spike_factor = run, spike_factor
        self._read_every_steps, self._warmup_steps = read_every_steps, warmup_steps
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._first: list[float] = []
        self._unread: list[_Seen] = []
        self._gradient_norm: Tensor | None = None
        self._step = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step under way, counted as in ``metrics.csv``."""
        self._step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        """Note the norm of the gradient before it is clipped."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of sharded weights
        pl_module.log("train/gradient_norm", norm)
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            self._gradient_norm = norm.float()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Note the loss, and read what is due.

        Raises:
            TrainingError: loss or gradient are no numbers, or the loss jumped.
        """
        loss = outputs["loss"].detach().float()
        self._unread.append(
            _Seen(
                step=self._step, epoch=trainer.current_epoch, batch_idx=batch_idx,
                loss=loss, gradient_norm=self._gradient_norm,
            )
        )  # fmt: skip
        self._gradient_norm = None
        is_due = len(self._unread) >= self._read_every_steps
        if trainer.strategy.root_device.type == "cpu" or is_due:
            self._read(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read what is left, so that nothing bad is validated."""
        self._read(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop where the loss on val is no number, which training alone would not show.

        Raises:
            TrainingError: it is none.
        """
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"training stopped at step {trainer.global_step}: the loss on val is {loss}, but "
                "those on train are numbers. A record of val has features that are no numbers "
                "(encode its video again), or the weights are too large (lower "
                f"trainer.optimizer.lr). {self._way_on()}"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read what is left, so that nothing bad is evaluated."""
        self._read(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read what is left, so that nothing bad is kept; keep the level."""
        self._read(trainer)
        checkpoint["loss_guard"] = {"losses": list(self._losses), "first": self._first}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the level."""
        state = checkpoint.get("loss_guard", {"losses": (), "first": ()})
        self._losses.extend(state["losses"])
        self._first = list(state["first"])

    def _read(self, trainer: L.Trainer) -> None:
        """Look at the batches that were not looked at; all processes do so at the same step."""
        seen, self._unread = self._unread, []
        if not seen:
            return
        losses = torch.stack([batch.loss for batch in seen]).tolist()
        norms = torch.stack(
            [torch.zeros_like(b.loss) if b.gradient_norm is None else b.gradient_norm for b in seen]
        ).tolist()
        message = ""
        for batch, loss, norm in zip(seen, losses, norms, strict=True):
            if fault := self._fault(batch.step, loss, norm):
                message = self._message(trainer, batch, fault)
                break
            self._losses.append(loss)
            if len(self._first) < LEAST:
                self._first.append(loss)
        if trainer.strategy.reduce_boolean_decision(bool(message), all=False):
            raise TrainingError(
                message
                or f"training stopped at step {seen[-1].step}: another process met a loss "
                "that is too high or no number; see what it says."
            )

    def _fault(self, step: int, loss: float, norm: float) -> str:
        """What is wrong with a batch; empty if nothing is."""
        level = statistics.median(self._losses) if self._losses else math.nan
        known = f"; the median of the last {len(self._losses)} is {level:.4g}"
        if not math.isfinite(loss):
            return f"the loss of the batch is {loss}{known if self._losses else ''}"
        if not math.isfinite(norm):
            return (
                f"the norm of the gradient is {norm}, after a loss of {loss:.4g}"
                f"{known if self._losses else ''}"
            )
        is_settled = len(self._losses) >= LEAST and step >= self._warmup_steps
        if not (self._spike_factor and is_settled and loss > self._spike_factor * level):
            return ""
        began = statistics.median(self._first)
        if loss <= began:
            return ""
        return (
            f"the loss of the batch is {loss:.4g}, above trainer.spike_factor="
            f"{self._spike_factor:g} times its level and above {began:.4g}, which training began "
            f"with{known}"
        )

    def _message(self, trainer: L.Trainer, batch: _Seen, fault: str) -> str:
        return (
            f"training stopped at step {batch.step}: {fault}. Batch {batch.batch_idx} of epoch "
            f"{batch.epoch} holds {', '.join(_records(trainer, batch))}. {self._way_on()}"
        )

    def _way_on(self) -> str:
        """How to go on after a fault."""
        last = self._run.last_checkpoint
        anew = "begin anew with a lower trainer.optimizer.lr, or mend the conversations."
        if not last.exists():
            return f"No checkpoint was written yet; {anew}"
        try:
            step = read_step(last)
        except CheckpointError as error:
            return f"There is none to go on from ({error}); {anew}"
        return (
            f"The last good checkpoint is {last} (step {step}); go on from it "
            f"with {go_on_command(self._run.path)} and something changed "
            "(trainer.optimizer.lr, trainer.gradient_clip, trainer.precision, mended "
            "features), or begin anew, also with another seed or other conversations."
        )


def _records(trainer: L.Trainer, batch: _Seen) -> Sequence[str]:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, ConversationDataModule)
    return datamodule.train_records(batch.epoch, batch.batch_idx)
