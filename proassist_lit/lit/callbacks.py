"""Streaming evaluation while training goes on, and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L

from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.sharding import whole
from proassist_lit.report.dashboard import Dashboard, Sink
from proassist_lit.report.from_evaluation import gather_dashboard, gather_glance
from proassist_lit.run_directory import RunDirectory


class StreamingEvaluation(L.Callback):
    """Answers streams with the model: a few at each validation, all after training.

    Args:
        evaluator: what answers and scores streams.
        run: where streams are written.
        sinks: where the dashboard of every evaluation is shown.
        settings: how many streams at each validation.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        run: RunDirectory,
        sinks: Sequence[Sink],
        settings: EvaluationConfig,
    ) -> None:
        self._evaluator, self._run, self._sinks = evaluator, run, sinks
        self._num_streams = settings.streams_on_validation
        self._best: dict[str, float] = {}
        # Metrics of the last validation, val_stream/...; None where no stream was answered.
        self.latest: dict[str, float] | None = {}

    def state_dict(self) -> dict[str, Any]:
        """The best loss on val so far, and its step."""
        return dict(self._best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._best = dict(state_dict)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer a few streams of val and show their metrics under ``val_stream/``."""
        if trainer.sanity_checking:
            return
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and float(loss) < self._best.get("best/val_loss", math.inf):
            self._best = {"best/val_loss": float(loss), "best/step": float(trainer.global_step)}
        if not self._num_streams:
            return
        assert isinstance(pl_module, AssistantModule)
        with whole(pl_module.model):
            result = self._evaluator.quick(pl_module.model, self._num_streams)
        if not result.transcripts["val"]:  # all of them filled their context
            self.latest = None
            return
        self.latest = {k: v for k, v in result.metrics.items() if isinstance(v, float)}
        if trainer.is_global_zero:
            glance = gather_glance(result, self._evaluator.matcher)
            self._show(glance, trainer.global_step)

    def evaluate(self, trainer: L.Trainer, module: AssistantModule) -> EvaluationResult:
        """Answer every stream of val and test, write and show the result."""
        module.to(trainer.strategy.root_device)  # after training Lightning leaves it on the CPU
        with whole(module.model):
            result = self._evaluator.evaluate(
                module.model, on_stream=self._run.write_stream, answers=self._run.answers
            )
        if trainer.is_global_zero:
            result.metrics |= self._best
            self._run.write_result(result)
            dashboard = gather_dashboard(result, self._evaluator.matcher)
            self._show(dashboard, trainer.global_step)
        return result

    def _show(self, dashboard: Dashboard, step: int) -> None:
        for sink in self._sinks:
            sink.show(dashboard, step)
