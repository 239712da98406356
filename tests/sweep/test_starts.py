"""Trials whose process dies: they are begun again, but not for ever."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from hydra.core.utils import JobReturn

from proassist_lit.config import RunConfig
from proassist_lit.job_result import JobResult
from proassist_lit.sweep.job import run_once
from proassist_lit.sweep.starts import MOST_STARTS, Starts
from tests.app import App
from tests.sweep.programs import SEARCH, lines
from tests.sweep.searching import FakeLauncher, run, states

KEPT = ["checkpoints/last.ckpt", "checkpoints/best.ckpt", "answers/a.json"]
# What was searched for is searched for again where there is no checkpoint.
SAYS_NOTHING = ["notes.json", "config.yaml", "metrics.csv", "train.log", "batch_size.json",
                "learning_rate.json", "checkpoints/.last.ckpt.ab12.4711.part"]  # fmt: skip


def die(sweep_dir: Path, number: int) -> None:
    """Begin a trial in a process that is killed."""
    run_dir = sweep_dir / str(number)
    run_dir.mkdir(exist_ok=True)
    file = sweep_dir / f".starts/{number}.json"
    with Starts(sweep_dir, number).counted(run_dir):
        left = file.read_text()
    file.write_text(left)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


class DyingLauncher(FakeLauncher):
    """Starts a process for each job; where one dies, all of a batch do."""

    deadly: frozenset[int] = frozenset()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        if self.deadly.isdisjoint(numbers):
            return super().launch(job_overrides, initial_job_idx)
        self.batches.append(len(job_overrides))
        for number, overrides in zip(numbers, job_overrides, strict=True):
            self.jobs.append((number, tuple(overrides)))
            die(self.folder, number)
        raise RuntimeError("a worker process was terminated")


@pytest.mark.parametrize("name", SAYS_NOTHING)
def test_starts_that_leave_nothing_to_go_on_from_are_counted(tmp_path: Path, name: str) -> None:
    starts = Starts(tmp_path, 2)
    assert starts.num == 0
    for num in (1, 2, 3):
        die(tmp_path, 2)
        write(tmp_path / "2" / name, "x" * num)
        assert starts.num == num
        assert Starts(tmp_path, 1).num == 0


@pytest.mark.parametrize("name", KEPT)
def test_trial_that_gets_further_is_counted_anew(tmp_path: Path, name: str) -> None:
    for length in range(1, 5):
        die(tmp_path, 0)
        assert Starts(tmp_path, 0).num == 1
        write(tmp_path / "0" / name, "x" * length)
        assert Starts(tmp_path, 0).num == 0


def test_trial_that_came_to_its_end_is_not_counted(tmp_path: Path) -> None:
    die(tmp_path, 0)
    JobResult(value=0.5).write(tmp_path / "0")
    assert Starts(tmp_path, 0).num == 0


def test_trial_at_work_is_not_counted(tmp_path: Path) -> None:
    die(tmp_path, 0)
    with FileLock(tmp_path / "0/.lock"):
        assert Starts(tmp_path, 0).num == 0
    assert Starts(tmp_path, 0).num == 1


def test_trial_whose_directory_was_removed_is_begun_anew(tmp_path: Path) -> None:
    die(tmp_path, 0)
    for path in [*(tmp_path / "0").iterdir(), tmp_path / "0"]:
        path.rmdir()
    assert Starts(tmp_path, 0).num == 0


@pytest.mark.parametrize("error", [None, ValueError("bug"), KeyboardInterrupt(), SystemExit(143)])
def test_start_that_ends_in_good_order_is_not_counted(
    tmp_path: Path, error: BaseException | None
) -> None:
    def job(config: RunConfig, run_dir: Path) -> float:
        assert (tmp_path / ".starts/0.json").exists()
        if error is not None:
            raise error
        return 0.5

    die(tmp_path, 0)
    with nullcontext() if error is None else pytest.raises(type(error)):
        run_once(job, RunConfig(), tmp_path / "0", Starts(tmp_path, 0))
    assert not (tmp_path / ".starts/0.json").exists()
    assert Starts(tmp_path, 0).num == 0


def test_search_gets_past_a_trial_whose_process_dies(
    launcher: FakeLauncher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dying = DyingLauncher(tmp_path)
    dying.deadly = frozenset({1})
    for under_way in ("0, 1, 2", "0, 1, 2", "1"):
        with pytest.raises(RuntimeError, match="terminated"):
            run(dying, num_trials=4, n_jobs=3)
        assert capsys.readouterr().err == (
            f"The search broke off at trial {under_way}; 3 of 4 trials were begun. Go on with: "
            f"python train.py -m +sweep=x seed=2 hydra.sweep.dir={tmp_path}\n"
        )
    with pytest.raises(RuntimeError, match="terminated"):
        run(dying, num_trials=4, n_jobs=3)

    # The third time alone, or the others of the batch would have been begun in vain as often.
    assert dying.batches == [3, 3, 1, 1, 1, 1, 1]
    assert dying.numbers == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 1]
    assert states(tmp_path) == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]
    said = capsys.readouterr().err
    assert "trial 1: its process died the last 3 times before it got further" in said
    assert re.search(r"behind the others\. Best so far: number [023], value -0\.0", said)
    assert f"By itself: python train.py {dying.jobs[1][1][0]}\n" in said

    dying.deadly = frozenset()  # on a larger machine, say
    run(dying, num_trials=4, n_jobs=3)
    assert states(tmp_path) == ["COMPLETE"] * 4
    assert "its process died the last 4 times" in capsys.readouterr().err


def test_search_that_would_break_off_again_is_not_to_go_on(
    launcher: FakeLauncher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise ValueError("no such key")

    launcher.during = refuse
    with pytest.raises(ValueError, match="no such key"):
        run(launcher)
    assert "Go on with" not in capsys.readouterr().err


@pytest.mark.road
def test_trial_that_gets_further_each_time_is_never_put_behind(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    dying = DyingLauncher(tmp_path)
    for step in range(3 * MOST_STARTS):
        dying.deadly = frozenset({1})
        with pytest.raises(RuntimeError, match="terminated"):
            run(dying, num_trials=3, n_jobs=3)
        for number in range(3):
            write(tmp_path / f"{number}/checkpoints/last.ckpt", "x" * step)
    dying.deadly = frozenset()
    run(dying, num_trials=3, n_jobs=3)
    assert set(dying.batches) == {3}
    assert states(tmp_path) == ["COMPLETE"] * 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_search_that_is_stopped_counts_no_start(
    launcher: FakeLauncher, tmp_path: Path, stop: BaseException
) -> None:
    for _ in range(2 * MOST_STARTS):
        launcher.ends = {1: stop}
        launcher.during = lambda: die(tmp_path, 1)  # joblib kills its workers after Ctrl-C
        with pytest.raises(type(stop)):
            run(launcher, num_trials=2, n_jobs=2)
    launcher.during = lambda: None
    run(launcher, num_trials=2, n_jobs=2)
    assert set(launcher.batches) == {2}
    assert states(tmp_path) == ["COMPLETE"] * 2


@pytest.mark.road
def test_jobs_of_a_search_count_their_starts(app: App) -> None:
    found: list[list[str]] = []

    def job(config: RunConfig, run_dir: Path) -> float:
        found.append([path.name for path in run_dir.parent.glob(".starts/*")])
        return 0.5

    app.job = job  # type: ignore[method-assign]
    assert app(*SEARCH, "hydra.sweeper.num_trials=2", "hydra.sweeper.pruner=none") == 0
    assert app("-m", "seed=1,2", "hydra.sweep.dir=other") == 0
    assert found == [["0.json"], ["1.json"], [], []]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher_",
    [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")],
    ids=["basic", "joblib"],
)
def test_search_goes_on_behind_a_trial_that_is_killed_each_time(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path, launcher_: tuple[str, ...]
) -> None:
    few = ("hydra.sweeper.num_trials=4", "hydra.sweeper.n_jobs=2")
    for _ in range(MOST_STARTS):
        process = program(*SEARCH, *launcher_, *few, dies_at="1")
        _, err = process.communicate(timeout=120)
        assert process.returncode == (1 if launcher_ else -signal.SIGKILL), err
        assert bool(re.search(r"broke off at trial .*1; 2 of 4 trials", err)) is bool(launcher_)
    process = program(*SEARCH, *launcher_, *few, dies_at="1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == (1 if launcher_ else -signal.SIGKILL), err
    assert "trial 1: its process died the last 3 times" in err
    assert Counter(number for number, *_ in lines(tmp_path / "begun"))["1"] == MOST_STARTS + 1
    assert Counter(number for number, _ in lines(tmp_path / "ended")) == Counter("023")
    process = program(*SEARCH, *launcher_, *few)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert states(tmp_path / "sweep") == ["COMPLETE"] * 4
    assert "best of 4 trials: number" in out
