"""Sweeps in processes of their own, of jobs that train nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = """
import os, signal, time
from pathlib import Path
from proassist_lit.cli import run_app

def job(config, run_dir):
    line = f"{run_dir.name.split('-')[0]} {config.trainer.optimizer.lr!r} {config.resume}\\n"
    with open("begun", "a") as file:
        file.write(line)
    waits = os.environ.get("WAITS_AT", "").split(",")
    while run_dir.name.split("-")[0] in waits and config.resume == "none":
        time.sleep(0.05)
    if run_dir.name.split("-")[0] == os.environ.get("FAILS_AT"):
        raise ValueError("bug")
    if run_dir.name.split("-")[0] == os.environ.get("DIES_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    if run_dir.name.split("-")[0] == os.environ.get("TIME_UP_AT"):
        os.kill(os.getpid(), signal.SIGUSR2)  # as submitit's controller, some time before the end
        time.sleep(60)
    with open("ended", "a") as file:
        file.write(f"{line.split()[0]} {os.getpid()}\\n")
    return config.trainer.optimizer.lr

if __name__ == "__main__":
    run_app(job, conf_dir=Path(CONF))
"""
LR = "trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))"
SEARCH = ("-m", "hydra/sweeper=proassist_optuna", "hydra.sweep.dir=sweep", LR)


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err
