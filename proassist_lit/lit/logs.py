"""Builds what a run is logged by: Lightning's loggers, and the sinks of its dashboards."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError
from proassist_lit.lit.curves_logger import CurvesLogger
from proassist_lit.lit.logger_sinks import CsvSink, TensorBoardSink
from proassist_lit.lit.wandb_run import (
    UnstoppedWandbLogger,
    WandbIdentity,
    find_identity,
    start_wandb,
)
from proassist_lit.lit.wandb_sink import WandbSink
from proassist_lit.model.checkpoint import read_step
from proassist_lit.report.dashboard import Sink
from proassist_lit.report.dashboard_files import DashboardFiles
from proassist_lit.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What a run is logged by.

    Attributes:
        loggers: what the Trainer logs losses to.
        sinks: what the dashboard of every evaluation is shown in.
        identity: carries the id of the W&B run in checkpoints.
    """

    loggers: Sequence[Logger]
    sinks: Sequence[Sink]
    identity: WandbIdentity

    def finish(self, *, failed: bool) -> None:
        """Close all; ``failed``: the run ended with an error."""
        for sink in self.sinks:
            sink.finish(failed=failed)


def build_logs(config: RunConfig, run: RunDirectory, checkpoint: str | None) -> Logs:
    """Files always; W&B unless it is disabled; TensorBoard where it is asked for.

    Args:
        config: of the run.
        run: its directory.
        checkpoint: what training goes on from, with its W&B run; None if it begins.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
        CheckpointError: the checkpoint cannot be read; no file was touched.
    """
    if config.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "logger.tensorboard=true needs the package tensorboard, which is not installed; "
            "pip install tensorboard, or leave the setting at false."
        )
    # The run directory holds more than logs, and what would be deleted was set aside.
    warnings.filterwarnings("ignore", message="Experiment logs directory")
    csv = CurvesLogger(run.path, step=read_step(Path(checkpoint)) if checkpoint else None)
    loggers: list[Logger] = [csv]
    sinks: list[Sink] = [DashboardFiles(run), CsvSink(csv)]
    if config.logger.tensorboard:
        board = TensorBoardLogger(save_dir=run.path, name="", version="tensorboard")
        loggers.append(board)
        sinks.append(TensorBoardSink(board))
    identity = find_identity(run, checkpoint)
    started = start_wandb(config, run, identity)
    if started is not None:
        loggers.append(UnstoppedWandbLogger(experiment=started, save_dir=run.path))
        sinks.append(WandbSink(started, run.path))
    return Logs(loggers=loggers, sinks=sinks, identity=identity)
