"""The bar over an epoch of training."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


class EpochBar(RichProgressBar):
    """Lightning's bar, counting epochs from 1 and up to the last, steps or epochs being limited.

    Args:
        read_every_steps: optimizer steps after which losses on a GPU are read; there to read one
            waits for all that it has yet to compute.
        leave: whether the bar of an epoch stays when it is over.
    """

    def __init__(self, *, read_every_steps: int, leave: bool = False) -> None:
        super().__init__(leave=leave)
        self._read_every_steps = read_every_steps
        self._shown: dict[str, Any] | None = None

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The losses that are shown."""
        is_between = trainer.training and trainer.global_step % self._read_every_steps
        if self._shown is None or not is_between or trainer.strategy.root_device.type == "cpu":
            self._shown = super().get_metrics(trainer, pl_module)
        return self._shown

    @property
    def total_train_batches(self) -> int | float:
        """Of this epoch; those before a resume count, as they do in what the bar says is done."""
        trainer = self.trainer
        if trainer.max_steps < 0:
            return trainer.num_training_batches
        done = trainer.global_step % trainer.num_training_batches  # a step for every batch
        return min(trainer.num_training_batches, trainer.max_steps - trainer.global_step + done)

    def _get_train_description(self, current_epoch: int) -> str:
        trainer = self.trainer
        epochs = trainer.max_epochs
        limits = [epochs] if epochs is not None and epochs >= 0 else []
        if trainer.max_steps >= 0:
            limits.append(math.ceil(trainer.max_steps / trainer.num_training_batches))
        of_all = f" of {min(limits)}" if limits else ""
        # As long as what stands there while it validates, so that the bar does not jump.
        return f"Epoch {current_epoch + 1}{of_all}".ljust(len(self.validation_description))
