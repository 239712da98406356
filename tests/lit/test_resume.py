"""Training that is stopped, whenever and however, ends as if it had not been: bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proassist_lit.build import build_core, build_examples
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError
from proassist_lit.lit.curves_logger import CurvesLogger, was_logged_before
from proassist_lit.lit.last_checkpoint import LastCheckpoint
from proassist_lit.lit.module import AssistantModule
from proassist_lit.types import Batch
from tests.lit.resuming import config, curves, fit

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here

Weights = dict[str, Tensor]
Whole = Callable[[int], tuple[Path, Weights]]


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[int], tuple[Path, Weights]]:
    """Folder and weights of a run that nobody stopped, by the batches of a step."""
    base, done = tmp_path_factory.mktemp("whole"), {}

    def train(accumulate: int) -> tuple[Path, Weights]:
        if accumulate not in done:
            folder = base / f"run{accumulate}"
            done[accumulate] = folder, fit(config(base / "data", accumulate=accumulate), folder)
        return done[accumulate]

    return train


class Killed(BaseException):
    """Nothing is done about it, as about SIGKILL."""


def same(weights: Weights, expected: Weights) -> bool:
    return all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def stop_at(patch: pytest.MonkeyPatch, batch: int, stop: Callable[[], None]) -> None:
    """Call ``stop`` instead of training on the batch of that number, counted from 0."""
    count, train = 0, AssistantModule.training_step

    def step(self: AssistantModule, batch_: object, batch_idx: int) -> Tensor:
        nonlocal count
        if count == batch:
            stop()
        count += 1
        return train(self, batch_, batch_idx)  # type: ignore[arg-type]

    patch.setattr(AssistantModule, "training_step", step)


@pytest.mark.road
@pytest.mark.parametrize(
    ("accumulate", "batch", "workers"),
    [
        (1, 1, 0), (1, 3, 0), (1, 5, 0), (1, 6, 0), (2, 1, 0), (2, 3, 0), (2, 5, 0), (3, 2, 0),
        (3, 6, 0), (3, 6, 2),  # in the second epoch
    ],
)  # fmt: skip
def test_a_killed_run_goes_on_bit_for_bit(
    accumulate: int,
    batch: int,
    workers: int,
    uninterrupted: Whole,
    tmp_path: Path,
) -> None:
    whole, expected = uninterrupted(accumulate)
    settings = config(whole.parent / "data", accumulate=accumulate, workers=workers)

    def kill() -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, batch, kill)
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)
        with pytest.raises(Killed):
            fit(settings, tmp_path / "run")
    weights = fit(settings, tmp_path / "run")

    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(whole)


@pytest.mark.road
def test_a_run_killed_after_validation_takes_the_last_batch_of_the_epoch(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", accumulate=3, steps=10)  # 5 steps an epoch

    def kill() -> None:
        raise Killed

    expected = fit(settings, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, kill)  # the ninth step was followed by a validation; one is left
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)
        with pytest.raises(Killed):
            fit(settings, tmp_path / "run")

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.road
def test_batches_filled_up_with_tokens_go_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path / "data", max_tokens=1000)
    seen = list[tuple[int, ...]]()
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        seen.append(batch.lengths)
        return train(self, batch, batch_idx)

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        expected = fit(settings, tmp_path / "whole")
    whole = list(seen)
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        stop_at(patch, 5, kill)
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)
        with pytest.raises(Killed):
            fit(settings, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        weights = fit(settings, tmp_path / "run")

    assert max(map(len, whole)) > 1
    assert seen == whole
    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.road
@pytest.mark.parametrize(
    ("accumulate", "steps"),
    [(1, 2), (1, 3), (2, 3), (4, 4), (4, 6)],  # 4: epochs of 4 steps
)
def test_an_ended_run_that_is_given_more_steps_goes_on_bit_for_bit(
    accumulate: int, steps: int, uninterrupted: Whole, tmp_path: Path
) -> None:
    whole, expected = uninterrupted(accumulate)
    data = whole.parent / "data"
    fit(config(data, accumulate=accumulate, steps=steps), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    assert saved["epoch"] == (steps // 4 if accumulate == 4 else 0)

    weights = fit(config(data, accumulate=accumulate), tmp_path / "run")

    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(whole)


@pytest.mark.road
def test_an_ended_run_that_is_given_more_epochs_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def epochs(number: int) -> RunConfig:
        settings = config(tmp_path / "data", accumulate=4)
        return replace(settings, trainer=replace(settings.trainer, max_steps=-1, max_epochs=number))

    expected = fit(epochs(2), tmp_path / "whole")
    fit(epochs(1), tmp_path / "run")
    weights = fit(epochs(2), tmp_path / "run")

    assert len(curves(tmp_path / "run")) > 8
    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.road
def test_a_longer_schedule_is_followed_from_where_it_is(tmp_path: Path) -> None:
    def falling(steps: int) -> RunConfig:
        settings = config(tmp_path / "data", steps=steps)
        optimizer = replace(settings.trainer.optimizer, warmup_steps=0)
        return replace(settings, trainer=replace(settings.trainer, optimizer=optimizer))

    def rates(folder: Path) -> list[str]:
        return [row["train/lr"] for row in curves(folder) if "train/lr" in row]

    fit(falling(5), tmp_path / "whole")
    fit(falling(2), tmp_path / "run")
    short = rates(tmp_path / "run")
    fit(falling(5), tmp_path / "run")

    want, got = rates(tmp_path / "whole"), rates(tmp_path / "run")
    assert got[:2] == short != want[:2]
    assert got[2:] == want[2:]
    assert len(got) == 5


@pytest.mark.road
def test_the_optimizer_is_set_as_the_run_that_goes_on_says(tmp_path: Path) -> None:
    def going(steps: int, **optimizer: float) -> RunConfig:
        settings = config(tmp_path / "data", steps=steps)
        changed = replace(settings.trainer.optimizer, warmup_steps=0, final_ratio=1.0, **optimizer)
        return replace(settings, trainer=replace(settings.trainer, optimizer=changed))

    seen: list[list[tuple[float, float, float]]] = []
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        groups = self.trainer.optimizers[0].param_groups
        seen.append([(g["lr"], g["weight_decay"], g["betas"][1]) for g in groups])
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        fit(going(2, lr=1e-3, weight_decay=0.1, beta2=0.98), tmp_path / "run")
        fit(going(4, lr=2e-3, weight_decay=0.2, beta2=0.95), tmp_path / "run")

    assert seen[:2] == [[(1e-3, 0.1, 0.98), (1e-3, 0.0, 0.98)]] * 2
    assert seen[2:] == [[(2e-3, 0.2, 0.95), (2e-3, 0.0, 0.95)]] * 2


@pytest.mark.road
def test_a_place_in_an_epoch_of_other_steps_is_refused(tmp_path: Path) -> None:
    fit(config(tmp_path / "data", steps=2), tmp_path / "run")
    before = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()
    for changed in ({"batch_size": 2}, {"accumulate": 2}, {"max_tokens": 2000}):
        with pytest.raises(
            CheckpointError,
            match=r"in the middle of an epoch with steps of seed 1, .*, batch_size 1, batches 1; "
            r"here they would be of seed 1, .*(batch_size 2|batches 2|max_tokens 2000)",
        ):
            fit(config(tmp_path / "data", steps=4, **changed), tmp_path / "run")  # type: ignore[arg-type]
    assert (tmp_path / "run/checkpoints/last.ckpt").read_bytes() == before


@pytest.mark.road
def test_a_whole_epoch_is_followed_by_one_of_other_steps(tmp_path: Path) -> None:
    first = config(tmp_path / "data", steps=1000)
    first = replace(first, trainer=replace(first.trainer, max_epochs=1))
    fit(first, tmp_path / "run")
    more = replace(first, data=replace(first.data, batch_size=2))
    more = replace(more, trainer=replace(more.trainer, max_epochs=2))
    seen: list[int] = []
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        seen.append(len(batch.lengths))
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        fit(more, tmp_path / "run")
    core = build_core(more)
    assert sum(seen) == len(build_examples(more, core, "train"))
    assert max(seen) == 2


@pytest.mark.road
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_the_step_end_then_saves_and_stops(
    number: signal.Signals,
    uninterrupted: Whole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, expected = uninterrupted(2)
    settings = config(whole.parent / "data", accumulate=2, save_every=0)
    slurm = tmp_path / "scontrol"
    slurm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    slurm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    before = signal.getsignal(number)

    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, lambda: signal.raise_signal(number))  # as the fourth step begins
        with pytest.raises(SystemExit, match=f"^{128 + number}$"):
            fit(settings, tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert f"by {number.name}; the state of training is in" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    asked = tmp_path / "asked"  # for a place in the queue, where Slurm gave notice
    said = asked.read_text() if asked.exists() else ""
    assert said == ("requeue 17\n" if number == signal.SIGUSR1 else "")
    monkeypatch.delenv("SLURM_JOB_ID")

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(whole)


@pytest.mark.road
def test_an_error_in_an_update_leaves_the_checkpoint_as_it_was(
    uninterrupted: Whole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, expected = uninterrupted(1)
    settings = config(whole.parent / "data")
    update, count = torch.optim.AdamW.step, 0

    def fail(self: torch.optim.AdamW, closure: Callable[[], float] | None = None) -> object:
        nonlocal count
        count += 1
        out = update(self, closure)
        if count == 5:
            raise RuntimeError("half of the weights are new")
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", fail)
        with pytest.raises(RuntimeError, match="half"):
            fit(settings, tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert "in the middle of an update; go on from" in capsys.readouterr().err

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(whole)


def test_rows_of_steps_that_come_again_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,train/loss,val/loss,val_stream/f1\n0,3.0,,\n1,2.0,,\n1,,2.5,\n2,,,0.4\n2,1.5,,\n"
        "3,1.0,,\n3,,0.9,\nnonsense"
    )
    logger = CurvesLogger(tmp_path, step=2)
    logger.log_metrics({"train/loss": 1.25, "train/new": 7.0}, step=2)
    logger.save()
    assert path.read_text().splitlines() == [
        "step,train/loss,train/new,val/loss,val_stream/f1",
        "0,3.0,,,", "1,2.0,,,", "1,,,2.5,", "2,,,,0.4", "2,1.25,7.0,,",
    ]  # fmt: skip


def test_curves_of_another_training_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,3.0\n")
    logger = CurvesLogger(tmp_path, step=None)
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.save()
    assert "1.0" in (tmp_path / "metrics.csv").read_text()
    assert (tmp_path / "metrics.part1.csv").read_text() == "step,train/loss\n0,3.0\n"


def test_a_row_without_a_step_was_cut_off() -> None:
    assert not was_logged_before({"step": None, "train/loss": "1"}, 5)
    assert not was_logged_before({}, 5)


def run(folder: Path, asked: dict[str, int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.lit.resuming", str(folder), json.dumps(asked)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "accumulate", "number"),
    [(0, 1, signal.SIGKILL), (2, 2, signal.SIGKILL), (0, 2, signal.SIGTERM)],
)
def test_a_run_stopped_at_random_moments_ends_as_one_that_was_not(
    workers: int, accumulate: int, number: signal.Signals, tmp_path: Path
) -> None:
    asked = {"steps": 150, "accumulate": accumulate, "workers": workers, "save_every": 4}
    whole = tmp_path / "whole"
    assert run(whole, asked).wait() == 0

    folder, rng, stops = tmp_path / "stopped", random.Random(workers), 0
    for _ in range(60):
        process = run(folder, asked)
        began = time.monotonic()
        checkpoint = folder / "checkpoints/last.ckpt"
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None:  # let it come one save further, then stop it at any moment
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != stamp:
                time.sleep(rng.uniform(0, 0.5))
                if stops < 20:
                    process.send_signal(number)
                    stops += 1
                break
            time.sleep(0.005)
            assert time.monotonic() - began < 120
        if process.wait() == 0:
            break
    assert stops == 20

    expected = torch.load(whole / "weights.pt", weights_only=True)
    assert same(torch.load(folder / "weights.pt", weights_only=True), expected)
    assert curves(folder) == curves(whole)
