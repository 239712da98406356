"""Trials whose time was up: submitit ends a job by an error when its limit of time is spent."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf
from submitit.core.utils import FailedJobError, UncompletedJobError

from proassist_lit.errors import ConfigError
from proassist_lit.sweep.launcher import is_time_up
from tests.app import REPO_CONF
from tests.sweep.programs import SEARCH, finish, lines
from tests.sweep.searching import FakeLauncher, run, states

TIME_UP = UncompletedJobError("Job not requeued because: timed-out too many times.")


def test_trial_whose_time_was_up_goes_on_with_the_next_start(
    launcher: FakeLauncher, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.ends = {1: TIME_UP}
    said = (
        r"the time of 1 of 3 trials was up before they came to their end: 1\. Go on with: "
        rf"python train\.py -m \+sweep=x seed=2 hydra\.sweep\.dir={launcher.folder}"
    )
    with pytest.raises(ConfigError, match=said):
        run(launcher)
    assert launcher.numbers == [0, 1, 2]
    assert states(launcher.folder) == ["COMPLETE", "RUNNING", "COMPLETE"]
    captured = capsys.readouterr()
    assert "trial 1: its time was up; it goes on" in captured.err
    assert "failed" not in captured.err
    assert "best of 3 trials so far: number" in captured.out

    run(launcher)
    assert launcher.numbers == [0, 1, 2, 1]
    assert launcher.jobs[1] == launcher.jobs[3]
    assert states(launcher.folder) == ["COMPLETE"] * 3
    captured = capsys.readouterr()
    assert "best of 3 trials: number" in captured.out
    assert not captured.err


def test_search_of_which_every_trial_ran_out_of_time_can_be_gone_on_with(
    launcher: FakeLauncher,
) -> None:
    for _ in range(4):  # each start gets further
        launcher.ends = {0: TIME_UP, 1: TIME_UP}
        with pytest.raises(ConfigError, match=r"the time of 2 of 2 trials was up .*: 0, 1\. Go on"):
            run(launcher, num_trials=2)
    run(launcher, num_trials=2)
    assert launcher.numbers == [0, 1] * 5
    assert states(launcher.folder) == ["COMPLETE"] * 2


def test_other_errors_are_told_from_it() -> None:
    assert is_time_up(TIME_UP)
    assert not is_time_up(FailedJobError("a job failed"))
    assert not is_time_up(RuntimeError("timed-out too many times"))
    assert not is_time_up(None)


def test_sweeps_that_the_documentation_gives_to_submitit_are_given_time() -> None:
    text = (REPO_CONF.parent / "docs/sweeps.md").read_text(encoding="utf-8").replace("\\\n", "")
    given = [line for line in text.splitlines() if line.startswith("python train.py -m")]
    for launcher_, defaults, names in (
        ("submitit_local", LocalQueueConf(), ["timeout_min"]),
        ("submitit_slurm", SlurmQueueConf(), ["timeout_min", "max_num_timeout"]),
    ):
        commands = [line for line in given if launcher_ in line]
        assert commands
        for command in commands:
            for name in names:
                [value] = re.findall(rf"hydra\.launcher\.{name}=(\d+)", command)
                assert int(value) > getattr(defaults, name)


@pytest.mark.slow
def test_trial_that_spent_its_limit_of_time_goes_on_when_started_again(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    limit = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    arguments = (*SEARCH, *limit, "hydra.sweeper.num_trials=2", "hydra.sweeper.n_jobs=2")
    process = program(*arguments, time_up_at="1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "trial 1: its time was up" in err
    assert "error: hydra.sweep.dir=sweep: the time of 1 of 2 trials was up" in err
    assert "best of 2 trials so far: number 0" in out

    out, err = finish(program(*arguments))
    begun = lines(tmp_path / "begun")
    # submitit grants three further limits by itself, and each goes on
    own = [resume for number, _, resume in begun if number == "1"]
    assert own == ["none"] + ["auto"] * 4
    assert len({rate for number, rate, _ in begun if number == "1"}) == 1
    assert Counter(number for number, _ in lines(tmp_path / "ended")) == Counter("01")
    assert "best of 2 trials: number" in out
