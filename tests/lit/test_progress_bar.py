from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar

from proassist_lit.lit.progress_bar import EpochBar


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_steps": 1200, "max_epochs": -1}, "Epoch 3 of 4"),
        ({"max_steps": 1201, "max_epochs": -1}, "Epoch 3 of 5"),
        ({"max_steps": -1, "max_epochs": 7}, "Epoch 3 of 7"),
        ({"max_steps": 1200, "max_epochs": 7}, "Epoch 3 of 4"),
        ({"max_steps": -1, "max_epochs": -1}, "Epoch 3"),
    ],
)
def test_the_bar_counts_epochs_up_to_the_last(limits: dict[str, int], said: str) -> None:
    bar = EpochBar(read_every_steps=10)
    trainer: Any = SimpleNamespace(num_training_batches=300, **limits)
    bar._trainer = trainer
    assert bar._get_train_description(2).strip() == said


@pytest.mark.parametrize(
    ("max_steps", "step", "total"),
    [
        (300, 0, 300),
        (300, 39, 300),  # resumed
        (1000, 100, 675),
        (1000, 675, 325),  # the last epoch is a part of one
        (1000, 775, 325),
        (-1, 775, 675),
    ],
)
def test_the_bar_counts_batches_from_before_a_resume(max_steps: int, step: int, total: int) -> None:
    bar = EpochBar(read_every_steps=10)
    trainer: Any = SimpleNamespace(max_steps=max_steps, global_step=step, num_training_batches=675)
    bar._trainer = trainer
    assert bar.total_train_batches == total


@pytest.mark.parametrize(("device", "reads"), [("cuda", [1, 10, 20]), ("cpu", list(range(1, 25)))])
def test_losses_on_a_gpu_are_read_as_often_as_they_are_logged(
    device: str, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def metrics(_: Any, trainer: Any, module: Any) -> dict[str, int]:
        read.append(trainer.global_step)
        return {"train/loss": trainer.global_step}

    monkeypatch.setattr(RichProgressBar, "get_metrics", metrics)
    bar, nothing = EpochBar(read_every_steps=10), cast(Any, None)
    strategy = SimpleNamespace(root_device=torch.device(device))
    shown = []
    for step in range(1, 25):
        trainer: Any = SimpleNamespace(training=True, global_step=step, strategy=strategy)
        shown.append(bar.get_metrics(trainer, nothing)["train/loss"])
    assert read == reads
    assert shown == [max(step for step in reads if step <= now) for now in range(1, 25)]

    trainer.training = False  # a validation shows what it found
    assert bar.get_metrics(trainer, nothing) == {"train/loss": 24}
    assert read == [*reads, 24]
