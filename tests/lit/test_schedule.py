"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from proassist_lit.lit.module import AssistantModule
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig, Schedule
from tests.fakes import tiny_model

WARMUP, STEPS = 3, 11


def rates(**settings: Any) -> list[float]:
    """That of every step, and of one after the last."""
    config = OptimizerConfig(lr=2.0, warmup_steps=WARMUP, **settings)
    module = AssistantModule(tiny_model(), ObjectiveConfig(), config, num_steps=STEPS)
    built: Any = module.configure_optimizers()
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", Schedule)
def test_the_rate_rises_by_even_steps_to_its_peak(schedule: Schedule) -> None:
    assert rates(schedule=schedule)[: WARMUP + 1] == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("schedule", "quarter", "middle", "end"),
    [
        (Schedule.COSINE, 0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2, 1.1, 0.2),
        (Schedule.LINEAR, 1.55, 1.1, 0.2),
        (Schedule.CONSTANT, 2.0, 2.0, 2.0),
    ],
)
def test_the_rate_falls_as_the_schedule_says(
    schedule: Schedule, quarter: float, middle: float, end: float
) -> None:
    found = rates(schedule=schedule, final_ratio=0.1)
    assert found[WARMUP] == 2.0
    assert found[WARMUP + 2] == pytest.approx(quarter)
    assert found[WARMUP + 4] == pytest.approx(middle)
    assert found[STEPS] == pytest.approx(end)


def test_the_default_is_the_cosine_of_before_to_the_bit() -> None:
    assert rates() == [
        2.0 * (step + 1) / 4 if step < WARMUP
        else 2.0 * (0.05 + (1 - 0.05) * (0.5 * (1 + math.cos(math.pi * (step - WARMUP) / 8))))
        for step in range(STEPS + 1)
    ]  # fmt: skip
