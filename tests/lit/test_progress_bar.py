from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
    bar = EpochBar()
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
    bar = EpochBar()
    trainer: Any = SimpleNamespace(max_steps=max_steps, global_step=step, num_training_batches=675)
    bar._trainer = trainer
    assert bar.total_train_batches == total
