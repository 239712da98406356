"""Glue between the plain model and the Trainer."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from proassist_lit.config import OptimizerConfig
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.objectives import Losses, ObjectiveConfig, compute_losses
from proassist_lit.types import Batch


class AssistantModule(L.LightningModule):
    """Trains an ``AssistantModel``. Takes built objects, not a configuration.

    Args:
        model: backbone, projector and heads.
        objective: what is learnt.
        optimizer: how.
        num_steps: steps of the whole run, for the schedule.
    """

    def __init__(
        self,
        model: AssistantModel,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        *,
        num_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self._objective, self._optimizer, self._num_steps = objective, optimizer, num_steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        losses = compute_losses(self.model, batch, self._objective)
        self._log("train", losses, batch, on_step=True)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", rate, on_step=True, on_epoch=False)
        self.log("train/tokens", batch.attention_mask.sum().float(), on_step=True, on_epoch=False)
        return losses.total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Teacher-forced losses of one batch."""
        losses = compute_losses(self.model, batch, self._objective)
        self._log("val", losses, batch, on_step=False)

    def _log(self, split: str, losses: Losses, batch: Batch, *, on_step: bool) -> None:
        values = {
            "loss": losses.total,
            "loss_response": losses.response.mean(),
            "loss_speak": losses.speak.balanced(),
        }
        if losses.dst_response is not None and losses.dst is not None:
            values["loss_dst_response"] = losses.dst_response.mean()
            values["loss_dst"] = losses.dst.balanced()
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value.detach(),
                on_step=on_step,
                on_epoch=not on_step,
                prog_bar=name == "loss",
                batch_size=len(batch.input_ids),
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what is trained; the schedule counts optimizer steps."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim >= 2]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        config = self._optimizer
        optimizer = torch.optim.AdamW(
            groups, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        """Share of the peak rate at ``step``."""
        config = self._optimizer
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        rest = max(self._num_steps - config.warmup_steps, 1)
        share = min((step - config.warmup_steps) / rest, 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return config.final_ratio + (1 - config.final_ratio) * cosine
