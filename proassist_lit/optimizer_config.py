"""Settings of the optimizer and of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from proassist_lit.errors import ConfigError


class OptimizerKind(StrEnum):
    """How gradients move the weights."""

    ADAMW = "adamw"
    """AdamW."""

    MUON = "muon"
    """Muon for the matrices of the layers, AdamW for all else: a model from scratch learns in fewer
    steps, each of which takes longer."""


class Schedule(StrEnum):
    """How the learning rate goes on after the warm-up."""

    COSINE = "cosine"
    """Falls along half a cosine: slowly at first and at the end."""

    LINEAR = "linear"
    """Falls by the same amount at every step."""

    CONSTANT = "constant"
    """Stays at its peak."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """The optimizer, with a linear warm-up of its rate and what follows it."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    """adamw, or muon for the matrices of the layers: for models from scratch; not with fsdp2."""

    lr: float = 1e-3
    """Peak learning rate; > 0."""

    weight_decay: float = 0.01
    """Decoupled weight decay of matrices, >= 0; biases and norms have none."""

    beta2: float = 0.98
    """Second-moment decay of AdamW, in [0, 1)."""

    warmup_steps: int = 50
    """Steps over which the rate rises from 0."""

    schedule: Schedule = Schedule.COSINE
    """cosine, linear or constant: how the rate falls from its peak after the warm-up, if at all."""

    final_ratio: float = 0.05
    """Share of the peak that is left at the last step, in [0, 1]; nothing to a constant rate."""

    def __post_init__(self) -> None:
        for name, fits, bounds in (  # nothing of it is true of a value that is no number
            ("lr", 0 < self.lr < math.inf, "> 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, ">= 0"),
            ("beta2", 0 <= self.beta2 < 1, "in [0, 1)"),
            ("warmup_steps", self.warmup_steps >= 0, ">= 0"),
            ("final_ratio", 0 <= self.final_ratio <= 1, "in [0, 1]"),
        ):
            if not fits:
                raise ConfigError(
                    f"trainer.optimizer.{name} must be {bounds}, got {getattr(self, name)}."
                )
