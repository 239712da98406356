"""A small training that can be stopped and gone on with; also a program: ``FOLDER SETTINGS``."""

from __future__ import annotations

import csv
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from proassist_lit.build import build_core
from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit.build import build_datamodule, build_module, build_trainer, find_resume
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.logs import build_logs
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.quiet import quiet_libraries
from proassist_lit.model.config import ModelConfig, TinyConfig, TrainMode
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.optimizer_config import OptimizerConfig, Schedule
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.trainer_config import Parallel, TrainerConfig

VAL_EVERY = 3
Weights = dict[str, Tensor]
Whole = Callable[[int], tuple[Path, Weights]]
"""Folder and weights of a run that nobody stopped, by the batches of a step."""

MEASURED = {"train/tokens_per_s", "train/frames_per_s", "train/mfu", "train/peak_memory_gib"}


def config(
    cache: Path,
    *,
    steps: int = 7,
    accumulate: int = 1,
    workers: int = 0,
    save_every: int = 1,
    max_tokens: int | None = None,
    batch_size: int = 1,
    strategy: Parallel = Parallel.AUTO,
    train: TrainMode = TrainMode.FULL,
    precision: str = "32-true",
    schedule: Schedule = Schedule.CONSTANT,
    **trainer: Any,
) -> RunConfig:
    """NFS, a short warm-up, dropout in attention, validation in the middle of epochs.

    With the constant rate a run that ended and goes on is as one that was longer from the start.
    """
    return RunConfig(
        name="resumed",
        resume="auto",
        data=DataConfig(
            cache=str(cache), toy=ToyConfig(num_train=5, num_val=1, num_test=1),
            batch_size=batch_size, num_workers=workers, packing=True, max_tokens=max_tokens,
        ),
        model=ModelConfig(
            train=train, tiny=TinyConfig(hidden_size=32, num_layers=2, num_heads=2, mlp_size=32)
        ),
        objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN, rho=0.5),
        stream=StreamConfig(max_new_tokens=2, max_dst_tokens=2),
        trainer=TrainerConfig(
            max_steps=steps, val_every_steps=VAL_EVERY, log_every_steps=1, accumulate=accumulate,
            save_every_steps=save_every, accelerator="cpu", strategy=strategy,
            devices="1" if strategy is Parallel.AUTO else "2", precision=precision,
            optimizer=OptimizerConfig(warmup_steps=2, schedule=schedule), **trainer,
        ),
        evaluation=EvaluationConfig(similarity="words", streams_on_validation=0),
    )  # fmt: skip


def fit(settings: RunConfig, folder: Path, *, dropout: float = 0.1) -> dict[str, Tensor]:
    """Train without the final evaluation; return the weights."""
    run = RunDirectory(folder)
    L.seed_everything(settings.seed, workers=True, verbose=False)
    checkpoint = find_resume(settings, run)
    core = build_core(settings)
    for layer in core.model.lm.get_decoder().layers:
        layer.self_attn.attention_dropout = dropout  # random numbers that resuming must go on with
    datamodule = build_datamodule(settings, core)
    module = build_module(settings, core, len(datamodule.train_dataloader()))
    logs = build_logs(settings, run, checkpoint)
    evaluation = StreamingEvaluation(core.evaluator, run, logs.sinks, settings.evaluation)
    trainer = build_trainer(settings, run, evaluation, logs)
    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    for logger in trainer.loggers:
        logger.save()
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def curves(folder: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv``; left out are empty cells, and what the clock and the machine say."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if v and k not in MEASURED}
            for row in csv.DictReader(file)
        ]


def same(weights: Weights, expected: Weights) -> bool:
    """Whether all of ``expected`` are there, bit for bit."""
    return all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def stop_at(patch: pytest.MonkeyPatch, batch: int, stop: Callable[[], None]) -> None:
    """Call ``stop`` instead of training on the batch of that number, counted from 0."""
    count, train = 0, AssistantModule.training_step

    def step(self: AssistantModule, batch_: object, batch_idx: int) -> Tensor:
        nonlocal count
        if count == batch:
            stop()
        count += 1
        return train(self, batch_, batch_idx)  # type: ignore[arg-type]

    patch.setattr(AssistantModule, "training_step", step)


def main(folder: Path, asked: dict[str, Any]) -> None:
    """Train, and leave the weights in ``weights.pt``."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    quiet_libraries()
    os.environ["WANDB_MODE"] = "disabled"
    weights = fit(config(folder.parent / "data", **asked), folder)
    torch.save(weights, folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
