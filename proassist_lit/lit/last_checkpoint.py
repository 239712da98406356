"""``last.ckpt``: the latest state that training can go on from without a changed digit."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from proassist_lit.atomic import remove_parts
from proassist_lit.errors import TrainingError
from proassist_lit.going_on import go_on_command
from proassist_lit.lit.requeue import SIGNALS, requeue
from proassist_lit.run_directory import RunDirectory

AGREE_EVERY_STEPS = 5
"""Short steps after which several processes ask each other whether one was told to stop."""

LONG_STEP_S = 1.0
"""Where steps take longer they ask at every one: notice of an end is short."""

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class LastCheckpoint(Checkpoint):
    """Saves between two optimizer steps: now and then, after validation, and when told to stop.

    SIGTERM lets the step under way end, saves and stops. So does SIGUSR1, which Slurm sends before
    the time is up (``sbatch --signal=SIGUSR1@120``); the job is then put into the queue again. The
    exit code is 128 and the number of the signal: whoever waits for the run must not take it for
    one that came to its end. So does an error or Ctrl-C, unless it comes before the first batch,
    in the middle of an update of the weights, or the loss turned out to be none (``LossGuard``):
    the file then stays as it was.

    Whenever a checkpoint is written, its counters are set to the last whole optimizer step: batches
    of a step that was not finished are taken again. Where training has ended they are those of the
    batch that would come next, for a run that is given more steps.

    Args:
        run: where ``last.ckpt`` lies; it is replaced in one go.
        every_steps: optimizer steps between two saves; 0 for none but after validation.
    """

    def __init__(self, run: RunDirectory, *, every_steps: int) -> None:
        self._run, self._every_steps = run, every_steps
        self._is_due = self._is_updating = self._has_begun = self._has_ended = False
        self._saved_step = 0
        self._stop: str = ""
        self._agree_every, self._asked = AGREE_EVERY_STEPS, (0, 0.0)  # step, time
        self._handlers: dict[int, Handler] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals, until training ends; clear away what a kill left behind."""
        self._saved_step = trainer.global_step
        self._asked = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            remove_parts(self._run.checkpoints / "*.ckpt")
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._note_signal)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save before the next batch."""
        self._is_due = not trainer.sanity_checking

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, and stop if told to, where an optimizer step has ended."""
        self._is_updating = False
        if not self._has_begun:
            # Going on where it validated, the loop has counted the end of that batch again.
            loop = trainer.fit_loop.epoch_loop
            loop._batches_that_stepped = loop.batch_progress.total.completed
            self._has_begun = True
        step = trainer.global_step
        if step == 0:
            return
        due = self._every_steps and step - self._saved_step >= self._every_steps
        told = self._told_to_stop(trainer)
        if self._is_due or due or told:
            self._save(trainer)
        if told:
            self._stop_by(told, trainer)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        """From here to the end of the batch the weights are between two states."""
        self._is_updating = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """The weights are whole again."""
        self._is_updating = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state, if it is another than the one that training went on from.

        Stop if told to since the last batch began: what comes after training takes long.
        """
        if self._has_begun:
            self._has_ended = True
            self._save(trainer)
            self._has_ended = False
        self._give_signals_back()
        if told := self._told_to_stop(trainer, at_once=True):
            self._stop_by(told, trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save where that is safe, and say how to go on; a state that is bad is not saved."""
        self._give_signals_back()
        # Before the first batch there may be half of a checkpoint that is being gone on from.
        begun = self._has_begun and trainer.global_step > 0
        if self._stop or not begun or trainer.state.fn != "fit":
            return
        if isinstance(exception, TrainingError):  # its message says what to go on from
            return
        is_safe = not self._is_updating and trainer.world_size == 1
        if is_safe:
            try:
                self._save(trainer)
            except TrainingError as error:
                self._print(str(error))
                return
        what = f"Stopped at step {trainer.global_step} by {type(exception).__name__}"
        self._say(what, saved=is_safe)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the counters of ``checkpoint`` to the last whole optimizer step."""
        loops = checkpoint["loops"]["fit_loop"]
        progress = loops["epoch_loop.batch_progress"]
        for counts in (progress["current"], progress["total"]):
            for name in ("ready", "started", "processed"):
                counts[name] = counts["completed"]
        # It is said of a batch that was fetched, and will be again.
        progress["is_last_batch"] = progress["current"]["completed"] >= trainer.num_training_batches
        if self._has_ended:
            begins = go_on_with_epoch(loops, int(trainer.num_training_batches))
            if begins and trainer.datamodule is not None:  # type: ignore[attr-defined]
                # Loader processes draw batches before anybody tells them that it is a new one.
                place = checkpoint[type(trainer.datamodule).__qualname__]  # type: ignore[attr-defined]
                place |= {"epoch": place["epoch"] + 1, "num_batches": 0}
            checkpoint["epoch"] = loops["epoch_progress"]["current"]["completed"]

    def _save(self, trainer: L.Trainer) -> None:
        target = self._run.last_checkpoint
        if trainer.is_global_zero:
            self._run.set_metrics_aside()
        trainer.save_checkpoint(target)  # all processes take part; the first one writes
        self._is_due, self._saved_step = False, trainer.global_step

    def _told_to_stop(self, trainer: L.Trainer, *, at_once: bool = False) -> str:
        """Name of the signal that says so; empty if none does.

        Of several processes some hear it a step earlier than others, and all must stop at the same
        one. Where steps are short they ask each other now and then only, unless ``at_once``, as the
        answer waits for the device.
        """
        if trainer.world_size == 1:
            return self._stop
        step, now = trainer.global_step, time.monotonic()
        if step % self._agree_every and not at_once:
            return ""
        before, then = self._asked
        pace = (now - then) / max(step - before, 1)
        heard: list[tuple[str, float]] = [("", 0.0)] * trainer.world_size
        torch.distributed.all_gather_object(heard, (self._stop, pace))
        slowest = max(seconds for _, seconds in heard)  # all must come to the same
        self._agree_every = 1 if slowest > LONG_STEP_S else AGREE_EVERY_STEPS
        self._asked = step, time.monotonic()
        self._stop = next((stop for stop, _ in heard if stop), "")
        return self._stop

    def _stop_by(self, told: str, trainer: L.Trainer) -> NoReturn:
        """Stop as the signal of that name asks for."""
        if trainer.is_global_zero:
            self._say(f"Stopped at step {trainer.global_step} by {told}", saved=True)
        if told == "SIGUSR1":
            requeue()
        raise SIGTERMException(128 + signal.Signals[told])  # what a shell says of a signal

    def _give_signals_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        self._stop = signal.Signals(number).name

    def _say(self, what: str, *, saved: bool) -> None:
        target = self._run.last_checkpoint
        state = "the state of training is in" if saved else "in the middle of an update; go on from"
        if not target.exists():
            return
        self._print(f"{what}; {state} {target}. Go on with: {go_on_command(self._run.path)}")

    @staticmethod
    def _print(text: str) -> None:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)


def go_on_with_epoch(loops: dict[str, Any], num_batches: int) -> bool:
    """Set the counters of ended training to those of a run that comes to its next batch.

    Lightning takes the epoch in which training ends for a whole one, wherever in it that is.

    Args:
        loops: state of the fit loop, changed in place.
        num_batches: of an epoch.

    Returns:
        Whether a new epoch begins with that batch.
    """
    epoch, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if batches["current"]["completed"] < num_batches:
        for counts in (epoch["current"], epoch["total"]):
            counts["processed"] = counts["completed"] = counts["started"] - 1
        return False
    for counts in (epoch["current"], epoch["total"]):
        counts["ready"] += 1
        counts["started"] += 1
    batches["is_last_batch"] = False
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    of_epoch = (batches, loops["epoch_loop.scheduler_progress"], *optimizer.values())
    for progress in of_epoch:
        progress["current"] = dict.fromkeys(progress["current"], 0)
    validated = loops["epoch_loop.val_loop.batch_progress"]
    validated["total"] = dict.fromkeys(validated["total"], 0)
    return True
