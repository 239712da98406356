"""What a batch system says by a signal: the time is up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from proassist_lit.going_on import go_on_command
from proassist_lit.rendezvous import is_first_process
from proassist_lit.run_directory import RunDirectory

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""SIGTERM: stop. SIGUSR1: stop, and into the queue again (``sbatch --signal=SIGUSR1@120``)."""


def requeue() -> None:
    """Ask Slurm to run this job again; nothing where there is no Slurm.

    Of several processes one asks: Slurm numbers tasks, each of which may have started more.
    """
    job, program = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if job and program and is_first_process():
        subprocess.run([program, "requeue", job], check=False, timeout=60)


@contextmanager
def ends_on_signal(run: RunDirectory) -> Iterator[None]:
    """Let a signal end what comes after training, at once: the run goes on with what is kept.

    The exit code is 128 and the number of the signal, as of training.
    """

    def end(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        Console(stderr=True).print(
            f"Stopped by {name} after training; what was streamed is kept. Go on with: "
            f"{go_on_command(run.path)}",
            highlight=False, soft_wrap=True, markup=False,
        )  # fmt: skip
        if name == "SIGUSR1":
            requeue()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
