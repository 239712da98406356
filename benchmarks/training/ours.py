"""Our side: the module that every run trains, in Lightning's Trainer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from benchmarks.training.options import CLIP, LEARNING_RATE, WEIGHT_DECAY, uses_autocast
from proassist_lit.data.collate import collate, pack
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.training_layers import GradientCheckpointing, prepare_layers
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.optimizer_config import OptimizerConfig
from proassist_lit.types import Example


class Watch(L.Callback):
    """When each step was over, and its loss."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over, self.losses = over, list[float]()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Note them."""
        self.losses.append(float(outputs["loss"]))
        self._over()


def train_ours(
    model: AssistantModel,
    rows: list[Example],
    options: argparse.Namespace,
    over: Callable[[], None],
) -> list[float]:
    """Loss of every step."""
    prepare_layers(model.lm, GradientCheckpointing(options.checkpointing), compiles=options.compile)
    module = AssistantModule(
        model,
        ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
        OptimizerConfig(
            lr=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            beta2=0.999,
            warmup_steps=0,
            final_ratio=1.0,
        ),
        num_steps=options.steps,
        micro_tokens=options.micro_tokens,
        fused=not options.no_fused,
    )
    watch = Watch(over)
    trainer = L.Trainer(
        accelerator="cpu" if options.device == "cpu" else "gpu", devices=1,
        precision="bf16-mixed" if uses_autocast(options) else "32-true",
        max_steps=options.steps, gradient_clip_val=CLIP, logger=False, callbacks=[watch],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module.train(), DataLoader(
        rows, batch_size=options.batch, collate_fn=collate if options.padded else pack,  # type: ignore[arg-type]
        pin_memory=options.device != "cpu", num_workers=options.workers,
    ))  # fmt: skip
    return watch.losses
