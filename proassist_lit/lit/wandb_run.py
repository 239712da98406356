"""The W&B run of a run: one that goes on when training does, and that never stops it."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from proassist_lit.atomic import write_text
from proassist_lit.config import RunConfig, WandbMode
from proassist_lit.config_schema import to_plain
from proassist_lit.model.checkpoint import read_callback
from proassist_lit.run_directory import RunDirectory

STEP = "trainer/global_step"
"""What everything is drawn over; Lightning's name."""

BEST_OF = {
    "train/loss": "min",
    "val/loss": "min",
    "val_stream/utterance_f1": "max",
    "val_stream/content_accuracy": "max",
    "val_stream/dst_update_f1": "max",
    "val_stream/dst_joint_goal_accuracy": "max",
    "val_stream/speak_f1": "max",
}
"""Curves whose best value stands in the summary beside the last one."""


class WandbIdentity(L.Callback):
    """Carries the id of the W&B run in every checkpoint, and how far it was logged.

    Args:
        run_id: of the W&B run.
        step: W&B's own count of logged rows to go on from.
    """

    def __init__(self, run_id: str, step: int = 0) -> None:
        self.run_id, self.step = run_id, step
        self.started: Any = None  # the W&B run, once there is one

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        step = self.step if self.started is None else int(self.started.step)
        return {"id": self.run_id, "step": step}


def find_identity(run: RunDirectory, checkpoint: str | None) -> WandbIdentity:
    """The W&B run to go on with, or a new one where training begins or branches off.

    Args:
        run: directory of the run, which remembers the id where the checkpoint does not.
        checkpoint: what training goes on from; None if it begins.

    Raises:
        CheckpointError: it cannot be read.
    """
    if checkpoint is None:
        return WandbIdentity(secrets.token_hex(4))
    state: Mapping[str, Any] = {}
    if run.holds(checkpoint):
        state = read_callback(Path(checkpoint), WandbIdentity.__qualname__)
    if "id" in state:
        return WandbIdentity(str(state["id"]), int(state["step"]))
    if run.wandb_id.exists():
        return WandbIdentity(run.wandb_id.read_text(encoding="utf-8").strip())
    return WandbIdentity(secrets.token_hex(4))


def start_wandb(config: RunConfig, run: RunDirectory, identity: WandbIdentity) -> Any:
    """Start the W&B run, or go on with it; None where W&B is disabled or does not start.

    ``WANDB_MODE`` goes before the configuration. A run that does not start online is kept offline.
    """
    mode = os.environ.get("WANDB_MODE") or config.logger.wandb.value
    if WandbMode.DISABLED in (config.logger.wandb, mode) or rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        return None
    for attempt in dict.fromkeys((mode, WandbMode.OFFLINE.value)):
        try:
            started = _start(config, run, identity, attempt)
        except Exception as error:  # whatever it is: a run is worth more than its dashboard
            warnings.warn(
                f"W&B did not start in mode {attempt}: {error}; "
                + (
                    "training goes on without it. logger.wandb=disabled asks for none."
                    if attempt == WandbMode.OFFLINE
                    else "the run is kept offline, wandb sync sends it later."
                ),
                stacklevel=2,
            )
        else:
            identity.started = started
            write_text(run.wandb_id, identity.run_id + "\n")
            return started
    return None


def _start(config: RunConfig, run: RunDirectory, identity: WandbIdentity, mode: str) -> Any:
    import wandb

    started = wandb.init(
        project=config.logger.project,
        name=f"{config.name}-seed{config.seed}",
        group=config.name,
        dir=run.path,
        id=identity.run_id,
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
        config=dict(to_plain(config)),
        reinit="create_new",  # the jobs of a multirun share a process
        settings=wandb.Settings(disable_code=True, save_code=False),
    )
    started.define_metric(STEP)
    started.define_metric("*", step_metric=STEP, step_sync=True)
    for name, best in BEST_OF.items():
        started.define_metric(name, step_metric=STEP, summary=f"{best},last")
    if started.step < identity.step:  # offline it cannot know how far it was
        started.log({}, step=identity.step)
    return started


class UnstoppedWandbLogger(WandbLogger):
    """Lightning's logger over a started run; what W&B raises is warned of."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row."""
        with unstopped():
            super().log_metrics(metrics, step)


@contextmanager
def unstopped() -> Iterator[None]:
    """Turn what W&B raises into a warning."""
    try:
        yield
    except Exception as error:  # whatever it is: a run is worth more than its dashboard
        warnings.warn(f"W&B did not take what was logged: {error}", stacklevel=3)


@contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Let W&B keep the files of tables in ``folder``, not in the home directory."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
