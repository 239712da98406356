"""Glue between the plain model and the Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from proassist_lit.data.collate import split
from proassist_lit.errors import CheckpointError
from proassist_lit.lit.muon import Muon
from proassist_lit.lit.parts import check_gradients
from proassist_lit.lit.sharding import is_sharded, shard
from proassist_lit.lit.weight_average import weights_of_training
from proassist_lit.loss_terms import LossTerms
from proassist_lit.micro_batches import (
    compute_losses_in_parts,
    compute_losses_of_shards,
    count_terms,
)
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.checkpoint import PREFIX, saved_names
from proassist_lit.model.fused import fuse
from proassist_lit.model.lora import cast_inputs
from proassist_lit.objectives import Losses, ObjectiveConfig, compute_losses, weigh
from proassist_lit.optimizer_config import OptimizerConfig, OptimizerKind, Schedule
from proassist_lit.sequence.batching import SharedOut
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
        self._objective, self._optimizer, self.num_steps = objective, optimizer, num_steps
        self._micro_tokens, self._micro_conversations = micro_tokens, micro_conversations
        self._fused = fused
        self._reached = False
        self._validated: Tensor | None = None  # sums and counts of the losses

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out a backbone that is not trained and can be read again from where it came."""
        names = saved_names(self.model)
        checkpoint["state_dict"] = {
            name: tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.removeprefix(PREFIX) in names
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what was left out; what else is missing remains an error.

        A run without an average goes on from the weights of training, not from those of the model.

        Raises:
            CheckpointError: the optimizer is another one, or moves other tensors.
        """
        self._check_optimizer(checkpoint)
        names = saved_names(self.model)
        known = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        known |= {name for name, _ in self.model.named_buffers(remove_duplicate=False)}
        own = {
            f"{PREFIX}{name}": tensor
            for name, tensor in self.model.state_dict().items()
            # Layers in 4 bits write more than they read.
            if name not in names and name in known
        }
        weights = weights_of_training(checkpoint, self)
        checkpoint["state_dict"] = own | checkpoint["state_dict"] | weights

    def _check_optimizer(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("optimizer_states")
        if not states:
            return
        kind = self._optimizer.kind
        was_muon = any("orthogonal" in group for group in states[0]["param_groups"])
        if was_muon != (kind is OptimizerKind.MUON):
            raise CheckpointError(
                f"resume: the checkpoint holds what {'muon' if was_muon else 'adamw'} keeps, but "
                f"trainer.optimizer.kind={kind.value}; set it as it was, or begin another run "
                "with its weights (proassist-lit export, then model.init_from)."
            )
        then = [len(group["params"]) for group in states[0]["param_groups"]]
        now = [len(group["params"]) for group in self._groups()]
        if then != now:
            before, here = (" + ".join(map(str, sizes)) for sizes in (then, now))
            raise CheckpointError(
                f"resume: the checkpoint's optimizer trains {before} tensors, this run's {here}; "
                "give model.train and the rest of model as they were, or begin another run with "
                "its weights (proassist-lit export, then model.init_from)."
            )

    def on_after_backward(self) -> None:
        """At the first step, see that the loss reaches projector and heads."""
        if not self._reached:
            check_gradients(self.model)
            self._reached = True

    def configure_model(self) -> None:
        """Shard the weights, where the strategy says so.

        Lightning gives them the type of ``trainer.precision`` later: too late for shards, which
        keep the type that they were made with.
        """
        mesh = self.device_mesh
        if mesh is not None and not is_sharded(self.model):
            self.trainer.precision_plugin.convert_module(self.model)
            shard(self.model, mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Train all of it, in Lightning's searches, too, which are over before ``on_fit_start``.

        Pretrained weights come in evaluation mode, which Lightning keeps; in it no layer is
        compiled, and all keep everything for the gradient.
        """
        if stage == "fit":
            self.train()

    def on_fit_end(self) -> None:
        """Leave a model that can be run without the Trainer."""
        cast_inputs(self.model.lm, casts=True)

    def on_train_start(self) -> None:
        """Train as this run says: a checkpoint holds the settings of the run that wrote it.

        On its device by now, where it is fused; Lightning's searches come by here as well, and a
        trial that was too large leaves the gradients that it had.
        """
        self.zero_grad(set_to_none=True)
        if self._fused:
            fuse(self.model.lm)
        cast_inputs(self.model.lm, casts=not str(self.trainer.precision).endswith("-mixed"))
        for config in self.trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                groups = schedule.optimizer.param_groups
                schedule.base_lrs = [self._optimizer.lr] * len(groups)
                for group, own in zip(groups, self._groups(), strict=True):
                    rate = self._optimizer.lr * self._rate(schedule.last_epoch)
                    group.update(own, params=group["params"], lr=rate)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, or of this process's share of one.

        Shares are weighed as parts of the whole: its losses are divided by what all processes
        count. The strategy takes the mean of the gradients, so each share counts as many times.
        """
        world = self.trainer.world_size
        in_parts = self._micro_tokens is not None or self._micro_conversations is not None
        counts = None
        if world > 1 or is_sharded(self.model):
            counts = self._add_up(count_terms(self.model, batch))
        if in_parts and counts is not None and is_sharded(self.model):
            parts = split(batch, self._micro_tokens, self._micro_conversations)
            losses = self._losses_of_shards(parts, counts)
        else:
            losses = compute_losses_in_parts(
                self.model, batch, self._objective, self._micro_tokens, counts,
                max_conversations=self._micro_conversations, scale=self._loss_scale(),
            )  # fmt: skip
        self._log_training(losses, batch)
        rate = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/lr", rate, on_step=True, on_epoch=False)  # it need not wait for the device
        return losses.total * world

    def _losses_of_shards(self, parts: Sequence[Batch], counts: Tensor) -> Losses:
        strategy, world = self.trainer.strategy, self.trainer.world_size
        return compute_losses_of_shards(
            self.model, parts, self._objective, counts,
            lambda share: strategy.backward(share * world, None),
            num_parts=self._most_parts(parts),
        )  # fmt: skip

    def _most_parts(self, parts: Sequence[Batch]) -> int:
        """Of all processes, which meet at every layer of a model in shards."""
        number = torch.tensor(len(parts), device=self.device)
        return int(self.trainer.strategy.reduce(number, reduce_op="max"))

    def _loss_scale(self) -> float:
        """What the precision plugin multiplies the loss by: with 16-mixed, as the scaler says."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _add_up(self, values: Tensor) -> Tensor:
        """Sums over all processes."""
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total

    def on_validation_epoch_start(self) -> None:
        """Nothing was counted yet."""
        self._validated = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up the teacher-forced losses of one batch, and what they are divided by."""
        batches = getattr(self.trainer.val_dataloaders, "batch_sampler", None)
        is_repeated = isinstance(batches, SharedOut) and batches.is_repeated(batch_idx)
        parts = split(batch, self._micro_tokens, self._micro_conversations)
        for place in range(self._most_parts(parts) if is_sharded(self.model) else len(parts)):
            losses = compute_losses(self.model, parts[min(place, len(parts) - 1)], self._objective)
            found = torch.stack([losses.sums(), losses.counts()])  # (2, terms)
            found = found.to(torch.float32 if found.device.type == "mps" else torch.float64)
            if is_repeated or place >= len(parts):
                found = torch.zeros_like(found)  # it was computed since shards need all processes
            self._validated = found if self._validated is None else self._validated + found

    def on_validation_epoch_end(self) -> None:
        """Log the losses of all of val: the same for any batches and any number of processes."""
        if self._validated is None:
            return
        found = self._validated
        if self.trainer.world_size > 1:
            found = self._add_up(found)
        sums, counts = found
        terms = LossTerms.of(sums, counts, self.model.decision)
        losses = weigh(terms, self.model.decision, self._objective)
        for name, value in loss_parts(losses).items():
            self.log(f"val/{name}", value.float(), prog_bar=name == "loss")

    def _log_training(self, losses: Losses, batch: Batch) -> None:
        values = {**loss_parts(losses), "tokens": batch.attention_mask.sum()}
        shown = torch.stack([value.detach().float() for value in values.values()])
        if self.trainer.world_size > 1:
            shown = self._add_up(shown)
        for name, value in zip(values, shown, strict=True):
            self.log(f"train/{name}", value, on_step=True, on_epoch=False, prog_bar=name == "loss")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let go of the gradients at once: Lightning keeps them through the next forward."""
        super().optimizer_step(*args, **kwargs)
        self.zero_grad(set_to_none=True)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the last step let go of them, and they hold what parts of this one gave."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of what is trained; the schedule counts optimizer steps.

        AdamW goes over the weights once a step, in one kernel, and computes in float32 where they
        are of 16 bits.
        """
        make = Muon if self._optimizer.kind is OptimizerKind.MUON else torch.optim.AdamW
        in_one = self.device.type in ("cpu", "cuda")
        optimizer = make(self._groups(), lr=self._optimizer.lr, fused=in_one)
        # It could unscale gradients as well; but Lightning does so before, or else does not clip.
        optimizer._step_supports_amp_scaling = False
        schedule = LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _groups(self) -> list[dict[str, Any]]:
        """What is trained, with its settings but the rate; vectors do not decay."""
        config = self._optimizer
        adamw = {"betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
        trained = [p for p in self.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim >= 2]
        vectors = {"params": [p for p in trained if p.ndim < 2], **adamw, "weight_decay": 0.0}
        if config.kind is not OptimizerKind.MUON:
            return [{"params": matrices, **adamw}, vectors]
        layers = {id(p) for p in self.model.lm.get_decoder().layers.parameters() if p.ndim == 2}
        inside = [p for p in matrices if id(p) in layers]
        outside = [p for p in matrices if id(p) not in layers]
        muon = {"params": inside, "orthogonal": True, "weight_decay": config.weight_decay}
        return [muon, {"params": outside, **adamw}, vectors]

    def _rate(self, step: int) -> float:
        """Share of the peak rate at ``step``."""
        config = self._optimizer
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        if config.schedule is Schedule.CONSTANT:
            return 1.0
        rest = max(self.num_steps - config.warmup_steps, 1)
        share = min((step - config.warmup_steps) / rest, 1.0)
        is_linear = config.schedule is Schedule.LINEAR
        left = 1 - share if is_linear else 0.5 * (1 + math.cos(math.pi * share))
        return config.final_ratio + (1 - config.final_ratio) * left


def loss_parts(losses: Losses) -> dict[str, Tensor]:
    """The total and the losses that make it, each as it is shown."""
    return {"loss": losses.total} | {f"loss_{name}": part for name, part in losses.parts.items()}
