"""The search itself, with a launcher that composes nothing; ``test_command`` has the whole way."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import optuna
import pytest
import yaml
from filelock import FileLock
from hydra.core.utils import JobReturn, JobStatus

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import write_config
from proassist_lit.errors import ConfigError
from proassist_lit.job_result import JobResult
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.sweep import ask_tell, study
from proassist_lit.sweep.job import run_once
from proassist_lit.sweep.study import STUDY_NAME, open_storage
from tests.sweep.searching import LR, FakeLauncher, run, states


def test_search_runs_its_trials_and_keeps_the_best(
    launcher: FakeLauncher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(launcher, "seed=3", LR, "name='a b'", num_trials=4)

    assert launcher.numbers == [0, 1, 2, 3]
    assert launcher.batches == [1, 1, 1, 1]
    rates = {number: launcher.rate(number) for number in range(4)}
    assert len(set(rates.values())) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in rates.values())
    best = min(rates, key=lambda number: abs(rates[number] - 1e-3))
    # Where they were given: of an experiment and a debug preset the later one counts.
    overrides = ["seed=3", f"trainer.optimizer.lr={rates[best]!r}", "name='a b'"]
    assert launcher.jobs[best] == (best, tuple(overrides))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {
        "number": best, "value": -abs(rates[best] - 1e-3), "overrides": overrides
    }  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"best of 4 trials: number {best}, value -0.000")
    command = said[1].removeprefix("Run it again: ")
    assert shlex.split(command) == ["python", "train.py", *overrides]


def test_search_keeps_its_trials_in_the_data_base(launcher: FakeLauncher, tmp_path: Path) -> None:
    run(launcher, LR, "seed=1,2")
    with open_storage(tmp_path) as storage:
        kept = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))
    for trial, (_, overrides) in zip(kept, launcher.jobs, strict=True):
        texts = {f"trainer.optimizer.lr={trial.params['trainer.optimizer.lr']!r}",
                 f"seed={trial.params['seed']}"}  # fmt: skip
        assert texts == set(overrides)
        assert trial.value == -abs(trial.params["trainer.optimizer.lr"] - 1e-3)


def test_least_is_best_where_one_minimizes(launcher: FakeLauncher, tmp_path: Path) -> None:
    launcher.ends = {0: 3.0, 1: 1.0, 2: 2.0}
    run(launcher, direction="minimize")
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["number"] == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_stopped_search_goes_on_where_it_was(
    launcher: FakeLauncher, tmp_path: Path, stop: BaseException,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    launcher.ends = {2: stop}
    with pytest.raises(type(stop)):
        run(launcher, num_trials=4)
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert capsys.readouterr().err == (
        "The search was stopped; 3 of 4 trials were begun. Go on with: "
        f"python train.py -m +sweep=x seed=2 hydra.sweep.dir={tmp_path}\n"
    )
    run(launcher, num_trials=4)
    assert launcher.numbers == [0, 1, 2, 2, 3]
    assert launcher.jobs[2] == launcher.jobs[3]
    assert states(tmp_path) == ["COMPLETE"] * 4

    never_stopped = FakeLauncher(tmp_path / "other")
    run(never_stopped, num_trials=4)
    assert never_stopped.jobs == [*launcher.jobs[:3], launcher.jobs[4]]


def test_another_seed_draws_otherwise(launcher: FakeLauncher, tmp_path: Path) -> None:
    other = FakeLauncher(tmp_path / "other")
    run(launcher, num_trials=2)
    run(other, num_trials=2, seed=2)
    rates = {x.rate(number) for x in (launcher, other) for number in (0, 1)}
    assert len(rates) == 4


def test_complete_search_runs_nothing_and_can_be_extended(launcher: FakeLauncher) -> None:
    for most, expected in ((2, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
        run(launcher, num_trials=most)
        assert launcher.numbers == expected


def test_trial_that_a_kill_left_half_drawn_is_drawn_to_its_end(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    run(launcher, LR, "seed=1,2,3", num_trials=1)
    with open_storage(tmp_path) as storage:
        trial = optuna.load_study(study_name=STUDY_NAME, storage=storage).ask()
        rate = trial.suggest_float("trainer.optimizer.lr", 1e-4, 1e-2, log=True)
    run(launcher, LR, "seed=1,2,3", num_trials=2)
    assert states(tmp_path) == ["COMPLETE"] * 2
    assert launcher.jobs[1][1][0] == f"trainer.optimizer.lr={rate!r}"
    assert launcher.jobs[1][1][1].startswith("seed=")


def test_batch_is_asked_for_together_and_launched_together(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    seen = []
    launcher.during = lambda: seen.append(states(tmp_path))
    run(launcher, num_trials=3, n_jobs=2)
    assert launcher.batches == [2, 1]
    assert seen == [["RUNNING"] * 2] * 2 + [["COMPLETE"] * 2 + ["RUNNING"]]


def test_batch_that_was_killed_is_launched_again_as_one(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    launcher.ends = {2: SystemExit(1)}
    with pytest.raises(SystemExit):
        run(launcher, num_trials=5, n_jobs=3)
    before = dict(launcher.jobs)
    run(launcher, num_trials=5, n_jobs=3)
    assert launcher.batches == [3, 3, 2]
    assert launcher.numbers == [0, 1, 2, 0, 1, 2, 3, 4]
    assert {n: o for n, o in launcher.jobs if n in before} == before


def test_numbers_that_do_not_adjoin_are_launched_apart(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    launcher.ends = {0: SystemExit(1)}
    with pytest.raises(SystemExit):
        run(launcher, n_jobs=3)
    with open_storage(tmp_path) as storage:
        optuna.load_study(study_name=STUDY_NAME, storage=storage).tell(1, 1.0)
    run(launcher, n_jobs=3)
    assert launcher.numbers == [0, 0, 2]
    assert launcher.batches == [3, 1, 1]


def test_failed_trials_count_and_are_named(
    launcher: FakeLauncher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.ends = {1: RuntimeError("bug")}
    for _ in range(2):
        run(launcher)
        assert "1 of 3 trials failed: 1\n" in capsys.readouterr().err
    assert states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert launcher.numbers == [0, 1, 2]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_trial_without_a_finite_value_failed(
    launcher: FakeLauncher, tmp_path: Path, value: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.ends = {0: value, 1: value}
    with pytest.raises(ConfigError, match="none of the 2 trials has a value"):
        run(launcher, num_trials=2)
    assert states(tmp_path) == ["FAIL"] * 2
    assert f"trial 0: failed, its value is {value}\n" in capsys.readouterr().err


def test_pruned_trial_is_told_as_such(
    launcher: FakeLauncher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    JobResult(value=None, pruned=True).write(tmp_path / "1")
    launcher.ends = {1: None}
    run(launcher)
    assert states(tmp_path) == ["COMPLETE", "PRUNED", "COMPLETE"]
    captured = capsys.readouterr()
    assert "trial 1: pruned\n" in captured.out
    assert "failed" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "direction", "said"),
    [
        (["trainer.optimizer.lr=interval(1e-4,1e-1)"], "maximize", "space was .*, now it is"),
        ([LR, "seed=4"], "maximize", "fixed was nothing, now it is seed=4"),
        ([LR], "minimize", "direction was maximize, now it is minimize"),
    ],
)
def test_directory_of_another_search_is_refused(
    launcher: FakeLauncher, arguments: list[str], direction: str, said: str
) -> None:
    run(launcher, num_trials=1)
    with pytest.raises(ConfigError, match=f"holds a search over something else: {said}"):
        run(launcher, *arguments, direction=direction)
    assert launcher.numbers == [0]
    run(launcher, LR, "resume=auto", num_trials=1)  # says nothing about what is searched


def test_values_of_another_metric_are_not_pruned_by(launcher: FakeLauncher) -> None:
    run(launcher, num_trials=1, prune_by="val_stream/utterance_f1")
    said = "prune_by was val_stream/utterance_f1, now it is val/loss"
    with pytest.raises(ConfigError, match=f"holds a search over something else: {said}"):
        run(launcher, num_trials=2)
    assert launcher.numbers == [0]
    run(launcher, num_trials=2, pruner="none")  # asks for no metric
    with pytest.raises(ConfigError, match=said):
        run(launcher, num_trials=3)
    run(launcher, num_trials=3, prune_by="val_stream/utterance_f1")
    assert launcher.numbers == [0, 1, 2]


def test_search_that_does_not_say_its_metric_goes_on(
    launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study._what_is_asked
    with monkeypatch.context() as before:  # as an earlier version kept it
        before.setattr(
            study, "_what_is_asked",
            lambda *a: {k: v for k, v in asked(*a).items() if k != "prune_by"},
        )  # fmt: skip
        run(launcher, num_trials=1)
    run(launcher, num_trials=2)
    assert launcher.numbers == [0, 1]


class TrainingLauncher(FakeLauncher):
    """Its jobs look into their directories, as those of the command line do."""

    config = RunConfig()

    def _run(self, number: int, overrides: tuple[str, ...]) -> JobReturn:
        result = super()._run(number, overrides)
        try:
            run_once(lambda *_: 0.5, self.config, self.folder / str(number))
        except ConfigError as error:
            result.status, result._return_value = JobStatus.FAILED, error
        return result


def test_trial_whose_settings_were_changed_meanwhile_is_not_lost(
    launcher: FakeLauncher, tmp_path: Path
) -> None:
    launcher.ends = {1: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run(launcher, n_jobs=2)
    begun = RunConfig(stream=StreamConfig(max_new_tokens=7))  # the experiment's file said so
    write_config(begun, tmp_path / "1/config.yaml")
    (tmp_path / "1/checkpoints").mkdir()
    (tmp_path / "1/checkpoints/last.ckpt").touch()

    again = TrainingLauncher(tmp_path)
    said = r"the directories of 1 hold trials that cannot go on as .* Put back what was changed"
    for _ in range(2):
        with pytest.raises(ConfigError, match=said):
            run(again, n_jobs=2)
        assert states(tmp_path) == ["COMPLETE", "RUNNING"]  # and none is begun beside it
    again.config = begun
    run(again, n_jobs=2)
    assert states(tmp_path) == ["COMPLETE"] * 3
    assert again.jobs[-2][1] == launcher.jobs[1][1]


def test_two_searches_never_share_a_directory(
    launcher: FakeLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_tell, "_OTHER_SWEEP_S", 0)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(ConfigError, match="another process searches in this directory"),
    ):
        run(launcher)
    assert launcher.jobs == []
    run(launcher, num_trials=1)
