"""Settings of a search: the keys of ``hydra.sweeper``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proassist_lit.errors import ConfigError

NAME = "proassist_optuna"
"""Option of the config group ``hydra/sweeper``."""

TARGET = "hydra_plugins.proassist_lit_optuna.OptunaSweeper"

_CHOICES = {"direction": ("maximize", "minimize"), "pruner": ("median", "none")}
_AT_LEAST = {"num_trials": 1, "n_jobs": 1, "warmup_trials": 1, "warmup_steps": 0}


@dataclass(kw_only=True)
class SearchSettings:
    """How a search goes about. Hydra reads this at every start: plain types, no imports."""

    _target_: str = TARGET
    num_trials: int = 20
    """Trials in all, those of an earlier start and those that failed included."""

    n_jobs: int = 1
    """Trials that are begun together; one after the other under hydra/launcher=basic."""

    seed: int = 1
    """Seed of the sampler; trial n is a function of it, n, and the trials finished before."""

    direction: str = "maximize"
    """maximize or minimize the value that a job returns; maximize what train.py does, an F1."""

    pruner: str = "median"
    """median (end a trial that is worse than half of the others at the same step) or none."""

    prune_by: str = "val/loss"
    """Metric of each validation by which trials are compared; also val_stream/..."""

    warmup_trials: int = 5
    """Trials that must be complete before any is ended early."""

    warmup_steps: int = 0
    """Steps of a trial before which it is not ended."""

    params: dict[str, Any] = field(default_factory=dict)
    """What is searched: key to interval(a,b), tag(log,interval(a,b)), range(a,b) or a,b,c."""

    def check(self) -> None:
        """Refuse what makes no search.

        Raises:
            ConfigError: all faults, one a line.
        """
        faults = [
            f"hydra.sweeper.{name} must be {' or '.join(choices)}, got {getattr(self, name)!r}."
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in choices
        ] + [
            f"hydra.sweeper.{name} must be at least {least}, got {getattr(self, name)}."
            for name, least in _AT_LEAST.items()
            if getattr(self, name) < least
        ]
        if faults:
            raise ConfigError("\n".join(faults))
