"""Ends training when validation has not become better for a while."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console


class Patience(EarlyStopping):
    """Lightning's early stopping by the loss on val, which goes on with the patience of the run.

    A run that ended by it and is started again does not train on; with more patience it does.

    Args:
        patience: validations without a lower loss after which training ends; >= 1.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(
            "val/loss", patience=patience, mode="min", check_on_train_epoch_end=False,
            check_finite=False,  # the guard of the loss tells of it
        )  # fmt: skip

    @property
    def is_over(self) -> bool:
        """Whether there is no patience left."""
        return self.wait_count >= self.patience

    @property
    def reason(self) -> str:
        """Why training ended; empty if it was not by this."""
        if not self.is_over:
            return ""
        return (
            f"val/loss was not below {float(self.best_score):.4g} in {self.wait_count} validations "
            f"(trainer.patience={self.patience})"
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the count; the patience is the configuration's."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no step if there was no patience left when the run ended."""
        if self.is_over:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say why training ended."""
        if self.reason and trainer.is_global_zero:
            Console().print(
                f"Training ended at step {trainer.global_step}: {self.reason}.", highlight=False
            )


def early_end(trainer: L.Trainer) -> str:
    """Why training ended before its last step; empty if it did not."""
    callback = trainer.early_stopping_callback
    return callback.reason if isinstance(callback, Patience) else ""
