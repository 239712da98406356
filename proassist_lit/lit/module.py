"""Glue between the plain model and the Trainer."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from proassist_lit.config import OptimizerConfig
from proassist_lit.lit.parts import check_gradients
from proassist_lit.lit.sharding import is_sharded, shard
from proassist_lit.micro_batches import compute_losses_in_parts, count_terms
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.checkpoint import PREFIX, saved_names
from proassist_lit.model.fused import fuse
from proassist_lit.objectives import Losses, ObjectiveConfig, compute_losses
from proassist_lit.types import Batch


class AssistantModule(L.LightningModule):
    """Trains an ``AssistantModel``. Takes built objects, not a configuration.

    Args:
        model: backbone, projector and heads.
        objective: what is learnt.
        optimizer: how.
        num_steps: steps of the whole run, for the schedule.
        micro_tokens: most tokens that go forward and backward at a time; None for no limit.
        micro_conversations: most conversations that do; None for no limit.
        fused: whether a Llama on a GPU uses Liger's kernels, if they are installed.
    """

    def __init__(
        self,
        model: AssistantModel,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        *,
        num_steps: int,
        micro_tokens: int | None = None,
        micro_conversations: int | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._objective, self._optimizer, self._num_steps = objective, optimizer, num_steps
        self._micro_tokens, self._micro_conversations = micro_tokens, micro_conversations
        self._fused = fused
        self._reached = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out a backbone that is not trained and can be read again from where it came."""
        names = saved_names(self.model)
        checkpoint["state_dict"] = {
            name: tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.removeprefix(PREFIX) in names
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what was left out; what else is missing remains an error."""
        names = saved_names(self.model)
        own = {
            f"{PREFIX}{name}": tensor
            for name, tensor in self.model.state_dict().items()
            if name not in names
        }
        checkpoint["state_dict"] = own | checkpoint["state_dict"]

    def on_after_backward(self) -> None:
        """At the first step, see that the loss reaches projector and heads."""
        if not self._reached:
            check_gradients(self.model)
            self._reached = True

    def configure_model(self) -> None:
        """Shard the weights, where the strategy says so."""
        mesh = self.device_mesh
        if mesh is not None and not is_sharded(self.model):
            shard(self.model, mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Fuse the backbone: only now it stands on the device on which it is trained."""
        if self._fused:
            fuse(self.model.lm)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, or of this process's share of one.

        Shares are weighed as parts of the whole: its losses are divided by what all processes
        count. The strategy takes the mean of the gradients, so each share counts as many times.
        """
        world = self.trainer.world_size
        counts = None
        if world > 1:
            counts = self._add_up(count_terms(self.model, batch))
        losses = compute_losses_in_parts(
            self.model, batch, self._objective, self._micro_tokens, counts,
            max_conversations=self._micro_conversations,
        )  # fmt: skip
        self._log("train", losses, batch, on_step=True)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", rate, on_step=True, on_epoch=False)
        return losses.total * world

    def _add_up(self, values: Tensor) -> Tensor:
        """Sums over all processes."""
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total

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
        if losses.relevance is not None:
            values["loss_relevance"] = losses.relevance.balanced()
        if losses.dst_response is not None and losses.dst is not None:
            values["loss_dst_response"] = losses.dst_response.mean()
            values["loss_dst"] = losses.dst.balanced()
        if on_step:
            values["tokens"] = batch.attention_mask.sum()
        shown = torch.stack([value.detach().float() for value in values.values()])
        if on_step and self.trainer.world_size > 1:
            shown = self._add_up(shown)
        for name, value in zip(values, shown, strict=True):
            self.log(
                f"{split}/{name}",
                value,
                on_step=on_step,
                on_epoch=not on_step,
                prog_bar=name == "loss",
                batch_size=batch.num_conversations,
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let go of the gradients at once: Lightning keeps them through the next forward."""
        super().optimizer_step(*args, **kwargs)
        self.zero_grad(set_to_none=True)

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
