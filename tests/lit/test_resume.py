"""Training that is stopped, whenever and however, ends as if it had not been: bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proassist_lit.lit.last_checkpoint import LastCheckpoint
from proassist_lit.lit.module import AssistantModule
from proassist_lit.optimizer_config import Schedule
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch
from tests.lit.resuming import Whole, config, curves, fit, same, stop_at

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


class Killed(BaseException):
    """Nothing is done about it, as about SIGKILL."""


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
@pytest.mark.parametrize("schedule", [Schedule.COSINE, Schedule.LINEAR])
def test_a_killed_run_goes_on_where_the_rate_falls(schedule: Schedule, tmp_path: Path) -> None:
    settings = config(tmp_path / "data", steps=5, schedule=schedule)

    def kill() -> None:
        raise Killed

    expected = fit(settings, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 4, kill)  # two steps after the warm-up
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)
        with pytest.raises(Killed):
            fit(settings, tmp_path / "run")

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")
    rates = [float(row["train/lr"]) for row in curves(tmp_path / "run") if "train/lr" in row]
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4]


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
@pytest.mark.parametrize("batch", [3, 5, 6])  # a validation comes before 3 and 6
def test_a_run_goes_on_bit_for_bit_after_ctrl_c(
    batch: int, uninterrupted: Whole, tmp_path: Path
) -> None:
    whole, expected = uninterrupted(1)
    settings = config(whole.parent / "data", save_every=0)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, batch, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(SystemExit):
            fit(settings, tmp_path / "run")

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(whole)


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
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_the_step_end_then_saves_and_stops(
    number: signal.Signals,
    uninterrupted: Whole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    slurm: Path,
) -> None:
    whole, expected = uninterrupted(2)
    settings = config(whole.parent / "data", accumulate=2, save_every=0)
    before = signal.getsignal(number)

    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, lambda: signal.raise_signal(number))  # as the fourth step begins
        with pytest.raises(SystemExit, match=f"^{128 + number}$"):
            fit(settings, tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert f"by {number.name}; the state of training is in" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    said = slurm.read_text() if slurm.exists() else ""  # a place in the queue was asked for
    assert said == ("requeue 17\n" if number == signal.SIGUSR1 else "")
    monkeypatch.delenv("SLURM_JOB_ID")

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(whole)


@pytest.mark.road
@pytest.mark.parametrize("place", ["training_step", "validation_step"])
def test_a_signal_at_the_end_of_training_stops_before_the_evaluation(
    place: str, uninterrupted: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, expected = uninterrupted(1)
    data, do = whole.parent / "data", getattr(AssistantModule, place)

    def told(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor | None:
        if self.global_step >= 5:
            signal.raise_signal(signal.SIGTERM)
        done: Tensor | None = do(self, batch, batch_idx)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssistantModule, place, told)
        with pytest.raises(SystemExit, match=r"^143$"):
            fit(config(data, steps=6), tmp_path / "run")  # it is validated at the sixth
    said = capsys.readouterr().err
    assert "Stopped at step 6 by SIGTERM; the state of training is in" in said

    assert same(fit(config(data), tmp_path / "run"), expected)
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


@pytest.mark.road
@pytest.mark.parametrize(
    ("place", "name"), [(torch.optim.AdamW, "load_state_dict"), (ExampleSet, "__getitem__")]
)
def test_an_end_before_the_first_batch_leaves_the_checkpoint_as_it_was(
    place: type, name: str, uninterrupted: Whole, tmp_path: Path
) -> None:
    whole, expected = uninterrupted(1)
    fit(config(whole.parent / "data", steps=3), tmp_path / "run")
    before = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    settings = config(whole.parent / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, interrupt)
        with pytest.raises(SystemExit):
            fit(settings, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/last.ckpt").read_bytes() == before

    assert same(fit(settings, tmp_path / "run"), expected)
    assert curves(tmp_path / "run") == curves(whole)


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
    asked = {"steps": 240, "accumulate": accumulate, "workers": workers, "save_every": 4}
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
