"""Sweeps in processes of their own: killed at any moment, and under other launchers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config
from proassist_lit.sweep.study import STUDY_NAME, open_storage
from tests.app import REPO_CONF

pytestmark = pytest.mark.road

PROGRAM = """
import os, time
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
    with open("ended", "a") as file:
        file.write(f"{line.split()[0]} {os.getpid()}\\n")
    return config.trainer.optimizer.lr

if __name__ == "__main__":
    run_app(job, conf_dir=Path(CONF))
"""
LR = "trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))"
SEARCH = ("-m", "hydra/sweeper=proassist_optuna", "hydra.sweep.dir=sweep", LR)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "train.py").write_text(PROGRAM.replace("CONF", repr(str(REPO_CONF))))

    def start(*arguments: str, waits_at: str = "", fails_at: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "train.py", *arguments], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"WAITS_AT": waits_at, "FAILS_AT": fails_at, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return start


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
