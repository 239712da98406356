"""Settings of the optimizer and of its learning rate."""

from __future__ import annotations

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


@dataclass(kw_only=True)
class OptimizerConfig:
    """The optimizer, with a linear warm-up and a cosine decay of its rate."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    """adamw, or muon for the matrices of the layers: for models from scratch; not with fsdp2."""

    lr: float = 1e-3
    """Peak learning rate; > 0."""

    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and norms have none."""

    beta2: float = 0.98
    """Second-moment decay of AdamW."""

    warmup_steps: int = 50
    """Steps over which the rate rises from 0."""

    final_ratio: float = 0.05
    """Share of the peak that is left at the last step."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"trainer.optimizer.lr must be > 0, got {self.lr}.")
        if self.warmup_steps < 0:
            raise ConfigError(
                f"trainer.optimizer.warmup_steps must be >= 0, got {self.warmup_steps}."
            )
