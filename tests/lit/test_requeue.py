"""Signals of a batch system: after training, and among several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from proassist_lit.atomic import remove_parts, replacing
from proassist_lit.lit import last_checkpoint
from proassist_lit.lit.last_checkpoint import AGREE_EVERY_STEPS, LastCheckpoint
from proassist_lit.lit.requeue import ends_on_signal, requeue
from proassist_lit.run_directory import RunDirectory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_after_training_ends_the_run_and_queues_it(
    number: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    slurm: Path,
) -> None:
    before = signal.getsignal(number)
    with (
        pytest.raises(SystemExit, match=f"^{128 + number}$"),
        ends_on_signal(RunDirectory(tmp_path / "run")),
    ):
        signal.raise_signal(number)
    assert signal.getsignal(number) == before
    assert f"Stopped by {number.name} after training; what" in capsys.readouterr().err
    assert slurm.exists() == (number == signal.SIGUSR1)


@pytest.mark.parametrize(
    ("others", "asks"),
    [
        ({}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0", "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "3"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "3"}, False),
    ],
    ids=["alone", "srun", "torchrun", "lightning"],
)
def test_one_of_several_processes_puts_the_job_into_the_queue(
    others: dict[str, str], asks: bool, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    requeue()
    assert slurm.exists() is asks


def asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mine: float, other: float) -> list[int]:
    """Steps at which a process whose steps take ``mine`` asks one whose steps take ``other``."""
    steps, clock = list[int](), 0.0

    def gather(heard: list[Any], _: Any) -> None:
        heard[:] = [("", mine), ("", other)]
        steps.append(trainer.global_step)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(last_checkpoint.time, "monotonic", lambda: clock)
    trainer: Any = SimpleNamespace(world_size=2, global_step=0)
    callback = LastCheckpoint(RunDirectory(tmp_path), every_steps=0)
    for step in range(1, 13):
        trainer.global_step, clock = step, clock + mine
        assert callback._told_to_stop(trainer) == ""
    return steps


@pytest.mark.parametrize("slow", [(0.1, 30.0), (30.0, 0.1)])
def test_processes_of_long_steps_ask_each_other_at_every_one(
    slow: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asks(monkeypatch, tmp_path, *slow) == [AGREE_EVERY_STEPS, *range(6, 13)]
    assert asks(monkeypatch, tmp_path, 0.1, 0.2) == [AGREE_EVERY_STEPS, 2 * AGREE_EVERY_STEPS]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("heard_by", ["this", "another"])
def test_a_signal_that_came_after_the_last_batch_began_stops_as_training_ends(
    number: signal.Signals,
    heard_by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slurm: Path,
) -> None:
    def gather(heard: list[Any], mine: tuple[str, float]) -> None:
        heard[:] = [mine, ("" if heard_by == "this" else number.name, 0.0)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    trainer: Any = SimpleNamespace(world_size=2, global_step=7, is_global_zero=True)
    callback, before = (
        LastCheckpoint(RunDirectory(tmp_path), every_steps=0),
        signal.getsignal(number),
    )
    callback.on_train_start(trainer, trainer)
    if heard_by == "this":
        signal.raise_signal(number)
    with pytest.raises(SystemExit, match=f"^{128 + number}$"):
        callback.on_train_end(trainer, trainer)
    assert signal.getsignal(number) == before
    assert slurm.exists() == (number == signal.SIGUSR1)


def test_what_a_kill_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    with replacing(target) as temporary:
        temporary.write_text("whole")
    left = temporary.with_name(temporary.name.replace(str(os.getpid()), "4711"))
    left.write_text("half")
    remove_parts(target)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
