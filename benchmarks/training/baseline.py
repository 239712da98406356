"""The baseline: ``transformers.Trainer`` with ProAssist's padded batches, logits and loss."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler, SequentialSampler

from benchmarks.training.options import CLIP, LEARNING_RATE, WEIGHT_DECAY, uses_autocast
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.types import IGNORE_INDEX, Example


def reference_collate(rows: Sequence[Example]) -> dict[str, Tensor]:
    """As ProAssist's collator, with its fault mended that loses the labels of shorter rows.

    Labels are what comes next; the silent frames are among them, as the model takes them out.
    """

    def pad(name: str, value: int) -> Tensor:
        return pad_sequence([getattr(r, name) for r in rows], batch_first=True, padding_value=value)

    labels = F.pad(pad("labels", IGNORE_INDEX)[:, 1:], (0, 1), value=IGNORE_INDEX)
    return {
        "input_ids": pad("input_ids", 0),
        "image_mask": pad("image_mask", 0),
        "image_features": torch.cat([row.image_features for row in rows]),
        "labels": labels,
        "pos_frame_mask": pad("pos_frame_mask", 0),
        "neg_frame_mask": pad("neg_frame_mask", 0),
    }


class ReferenceModel(nn.Module):
    """ProAssist's forward: all logits, all hidden states, cross-entropy and two binary ones."""

    def __init__(self, model: AssistantModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        image_mask: Tensor,
        image_features: Tensor,
        labels: Tensor,
        pos_frame_mask: Tensor,
        neg_frame_mask: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of a padded batch; the head says P(speak), its targets are turned with it."""
        embeds = self.model.embed(input_ids, image_mask, image_features)
        out = self.model.lm(inputs_embeds=embeds, use_cache=False, output_hidden_states=True)
        logits = out.logits.float()  # (B, T, V)
        labels = labels.masked_fill(neg_frame_mask, IGNORE_INDEX)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        speak = self.model.speak_head(out.hidden_states[-1]).float()  # (B, T)
        terms = [
            F.binary_cross_entropy_with_logits(speak[mask], torch.full_like(speak[mask], target))
            for mask, target in ((neg_frame_mask, 0.0), (pos_frame_mask, 1.0))
        ]
        return {"loss": loss + sum(terms) / 2}


class Clock(transformers.TrainerCallback):
    """When each step of the Trainer was over."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note it."""
        self._over()


class OrderedTrainer(transformers.Trainer):  # type: ignore[misc]
    """Takes the conversations as they come, so that both sides have the same batches."""

    losses: list[float]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the loss."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.losses.append(float(loss.detach()))
        return loss


def train_baseline(
    model: AssistantModel,
    rows: list[Example],
    options: argparse.Namespace,
    over: Callable[[], None],
) -> list[float]:
    """Loss of every step."""
    if options.baseline_checkpointing == GradientCheckpointing.FULL:
        model.lm.gradient_checkpointing_enable({"use_reentrant": False})
    with tempfile.TemporaryDirectory() as folder:
        trainer = OrderedTrainer(
            model=ReferenceModel(model),
            args=transformers.TrainingArguments(
                output_dir=folder, per_device_train_batch_size=options.batch,
                max_steps=options.steps, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
                max_grad_norm=CLIP, lr_scheduler_type="constant", optim="adamw_torch_fused",
                report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no",
                remove_unused_columns=False, use_cpu=options.device == "cpu",
                dataloader_pin_memory=options.device != "cpu", bf16=uses_autocast(options),
                dataloader_num_workers=options.workers,
            ),
            train_dataset=rows, data_collator=reference_collate, callbacks=[Clock(over)],
        )  # fmt: skip
        trainer.losses = []
        trainer.train()
    return trainer.losses
