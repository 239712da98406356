"""Sweeps in processes of their own: killed at any moment, and under other launchers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config
from proassist_lit.sweep.study import STUDY_NAME, open_storage
from tests.sweep.programs import SEARCH, finish, lines, wait_for

pytestmark = pytest.mark.road


def test_search_killed_in_a_batch_loses_and_repeats_no_trial(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    arguments = (*SEARCH, "hydra.sweeper.num_trials=5", "hydra.sweeper.n_jobs=3")
    first = program(*arguments, waits_at="1")
    wait_for(lambda: len(lines(tmp_path / "begun")) == 2, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert [number for number, _ in lines(tmp_path / "ended")] == ["0"]

    out, _ = finish(program(*arguments))

    begun = lines(tmp_path / "begun")
    assert [number for number, *_ in begun] == ["0", "1", "1", "2", "3", "4"]
    assert begun[1][1] == begun[2][1]
    assert [resume for *_, resume in begun] == ["none"] * 2 + ["auto"] + ["none"] * 3
    assert [number for number, _ in lines(tmp_path / "ended")] == ["0", "1", "2", "3", "4"]
    assert "job 0-default-seed1: finished earlier" in out
    with open_storage(tmp_path / "sweep") as storage:
        trials = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    rates = {int(number): float(rate) for number, rate, _ in begun}
    for trial in trials:
        assert trial.params == {"trainer.optimizer.lr": rates[trial.number]}
        assert trial.value == rates[trial.number]
        config = read_config(
            RunConfig, tmp_path / f"sweep/{trial.number}-default-seed1/config.yaml"
        )
        assert config.trainer.optimizer.lr == rates[trial.number]


@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"),
    ],
    ids=["joblib", "submitit_local"],
)
def test_search_under_other_launchers(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path, launcher: tuple[str, str]
) -> None:
    process = program(*SEARCH, *launcher, "hydra.sweeper.num_trials=2", "hydra.sweeper.n_jobs=2")
    out, _ = finish(process)

    assert Counter(number for number, *_ in lines(tmp_path / "begun")) == Counter("01")
    assert str(process.pid) not in {pid for _, pid in lines(tmp_path / "ended")}
    with open_storage(tmp_path / "sweep") as storage:
        kept = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))
    rates = {int(number): float(rate) for number, rate, _ in lines(tmp_path / "begun")}
    assert {trial.number: trial.value for trial in kept} == rates
    assert "best of 2 trials" in out


def test_sweep_side_by_side_shows_a_bug_once(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = program("-m", "seed=1,2", "hydra/launcher=joblib", fails_at="1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("ValueError: bug") == 1
    assert "error:" not in err
    [sweep] = (tmp_path / "outputs/multirun").iterdir()  # one directory, made by the first process
    assert {path.name for path in sweep.glob("*-default-*")} == {
        "0-default-seed1", "1-default-seed2"
    }  # fmt: skip
    again, _ = finish(
        program("-m", "seed=1,2", "hydra/launcher=joblib", f"hydra.sweep.dir={sweep}")
    )
    assert [number for number, _ in lines(tmp_path / "ended")] == ["0", "1"]
    assert "job 0-default-seed1: finished earlier" in again
