"""A program: trainings one after the other, by as many processes as started it: ``FOLDER LEGS``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.lit.quiet import quiet_libraries
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import TrainMode
from proassist_lit.trainer_config import Parallel
from tests.lit.resuming import config, fit

STEPS = 6
"""Of a run that nobody stops."""

STOP = 4
"""Steps after which the others are stopped: within an epoch, and not where one validates."""


def train(
    base: Path,
    name: str,
    *,
    steps: int = STEPS,
    strategy: str = "auto",
    dropout: float = 0.0,
    lora: bool = False,
    precision: str = "32-true",
) -> None:
    """Train in ``base / name``, from where a run there stopped, if one did."""
    parallel = Parallel(strategy)
    settings = config(
        base / "data", steps=steps, save_every=0, strategy=parallel,
        batch_size=2 if parallel is Parallel.AUTO else 1,
        train=TrainMode.LORA if lora else TrainMode.FULL, precision=precision,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        if lora:  # as with a backbone that can be read again
            never = property(lambda _: False, lambda _, __: None)
            patch.setattr(AssistantModel, "saves_backbone", never, raising=False)
        fit(settings, base / name, dropout=dropout)


def main(base: Path, legs: list[dict[str, Any]]) -> None:
    """Train all."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    quiet_libraries()
    os.environ["WANDB_MODE"] = "disabled"
    for leg in legs:
        train(base, **leg)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
