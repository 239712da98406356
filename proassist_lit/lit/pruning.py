"""Ends a trial of a search that is worse than the others at the same step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import lightning as L

from proassist_lit.data.record_checks import nearest
from proassist_lit.errors import ConfigError
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.module import AssistantModule
from proassist_lit.metrics.directions import DIRECTIONS
from proassist_lit.sweep.trial import Trial


class Pruning(L.Callback):
    """Reports each validation to the search and stops training when it says so.

    Args:
        trial: what to report to.
        evaluation: whose ``val_stream/`` metrics may be reported; it must come before this in the
            Trainer's callbacks.
    """

    def __init__(self, trial: Trial, evaluation: StreamingEvaluation) -> None:
        self._trial, self._evaluation = trial, evaluation
        self.pruned = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report; the first process asks, and all of them hear the answer.

        Raises:
            ConfigError: there is no such metric.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        latest = self._evaluation.latest
        if latest is None and self._trial.prune_by.startswith("val_stream/"):
            return  # the model talks every stream full, as long as it is not trained
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        value = self._value(logged | (latest or {}))
        if value is None:
            return
        ended = trainer.is_global_zero and self._trial.report(value, trainer.global_step)
        if trainer.global_step >= cast(AssistantModule, pl_module).num_steps:
            return  # nothing is saved, and its value would be lost
        if trainer.strategy.broadcast(ended):
            self.pruned = True
            trainer.should_stop = True

    def _value(self, metrics: Mapping[str, float]) -> float | None:
        name = self._trial.prune_by
        if name not in metrics:
            prefix, _, metric = name.partition("/")
            is_of_words = metric.startswith("utterance_") and metric in DIRECTIONS
            if prefix == "val_stream" and is_of_words and "val_stream/utterance_f1" in metrics:
                return None  # of pairs, and nothing is matched as long as it is not trained
            known = [key for key in metrics if key.startswith("val")]
            raise ConfigError(
                f"hydra.sweeper.prune_by={name}: validation has no such metric; the nearest is "
                f"{nearest(name, known)!r} (there are {', '.join(sorted(known))})."
            )
        return metrics[name]
