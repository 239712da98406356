"""Callbacks: streaming evaluation, and a checkpoint when training is cut short."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
from rich.console import Console

from proassist_lit.atomic import replacing
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.lit.module import AssistantModule
from proassist_lit.run_directory import RunDirectory


class StreamingEvaluation(L.Callback):
    """Answers streams with the model: a few at each validation, all after training.

    Args:
        evaluator: what answers and scores.
        run: where streams and metrics are written.
        streams_on_validation: streams of val answered at each validation; 0 for none.
    """

    def __init__(
        self, evaluator: Evaluator, run: RunDirectory, *, streams_on_validation: int
    ) -> None:
        self._evaluator, self._run = evaluator, run
        self._streams_on_validation = streams_on_validation
        self.latest: dict[str, float] = {}  # ``val_stream/`` metrics of the last validation

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer a few streams of val and log their metrics under ``val_stream/``."""
        if trainer.sanity_checking or not self._streams_on_validation:
            return
        assert isinstance(pl_module, AssistantModule)
        metrics = self._evaluator.quick(pl_module.model, self._streams_on_validation)
        named = {f"val_stream/{name}": value for name, value in metrics.items()}
        self.latest = {name: value for name, value in named.items() if isinstance(value, float)}
        self._log(trainer, named)

    def evaluate(self, trainer: L.Trainer, module: AssistantModule) -> EvaluationResult:
        """Answer every stream of val and test, write and log the result."""
        module.to(trainer.strategy.root_device)  # after training Lightning leaves it on the CPU
        result = self._evaluator.evaluate(
            module.model, on_stream=self._run.write_stream, answers=self._run.path / "answers"
        )
        self._run.write_result(result)
        self._log(trainer, result.metrics)
        return result

    @staticmethod
    def _log(trainer: L.Trainer, metrics: Mapping[str, float | str]) -> None:
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
            logger.save()


class SaveWhenStopped(L.Callback):
    """Saves ``last.ckpt`` when training ends by Ctrl-C or an error, and says where it is."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save, by way of a temporary file: an interrupted save leaves the old one."""
        if trainer.global_step == 0 or trainer.state.fn != "fit":
            return
        target = self._run.last_checkpoint
        with replacing(target) as temporary:
            trainer.save_checkpoint(temporary)
        Console(stderr=True).print(
            f"Stopped at step {trainer.global_step} by {type(exception).__name__}; the state of "
            f"training is in {target}. Go on with: hydra.run.dir={self._run.path} resume=auto",
            highlight=False,
            soft_wrap=True,
        )
