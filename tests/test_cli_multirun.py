"""One command line, several jobs: every combination, a table, and checks before the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from proassist_lit.config import RunConfig
from proassist_lit.errors import StreamError
from tests.app import App


@pytest.mark.road
def test_multirun_runs_every_combination_and_leaves_a_table(app: App) -> None:
    assert app("-m", "seed=2,3", "+experiment=per_turn,per_token") == 0
    assert [(c.seed, c.objective.kind.value) for c, _ in app.jobs] == [
        (2, "per_turn"), (2, "per_token"), (3, "per_turn"), (3, "per_token"),
    ]  # fmt: skip
    assert len({run_dir for _, run_dir in app.jobs}) == 4
    [sweep] = {run_dir.parent for _, run_dir in app.jobs}
    assert (sweep / "multirun.yaml").exists()
    rows = (sweep / "table.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "seed" in rows[0]
    assert rows[4].startswith("3-per_token-seed3,done")
    assert "| 3-per_token-seed3 |" in (sweep / "table.md").read_text()
    assert "3-per_token-seed3" in (sweep / "table.html").read_text()
    assert app.out.count("1-per_token-seed2") >= 3  # printed after each job that came later


@pytest.mark.road
def test_multirun_table_is_there_before_the_last_job(app: App) -> None:
    sizes = []
    noted = app.job

    def job(config: RunConfig, run_dir: Path) -> float:
        table = run_dir.parent / "table.csv"
        sizes.append(len(table.read_text().splitlines()) if table.exists() else 0)
        return noted(config, run_dir)

    app.job = job  # type: ignore[method-assign]
    assert app("-m", "seed=range(2,5)", "hydra.sweep.dir=sweep") == 0
    assert sizes == [0, 2, 3]
    assert {run_dir.parent for _, run_dir in app.jobs} == {Path.cwd() / "sweep"}


@pytest.mark.road
@pytest.mark.parametrize("values", ["seed=choice(2,3)", "+experiment=glob(per_t*)"])
def test_sweeps_of_other_kinds(app: App, values: str) -> None:
    assert app("-m", values) == 0
    assert len(app.jobs) == 2


@pytest.mark.parametrize(
    "argument",
    ["seed=2,x", "+experiment=per_turn,per_tokn", "+foo=1,2", "+experiment=glob(x*)"],
)
def test_sweep_values_are_checked_before_the_first_job(app: App, argument: str) -> None:
    assert app("-m", argument) == 2
    assert app.said().startswith(f"error: {argument}: ")
    assert app.jobs == []


@pytest.mark.road
def test_a_sweep_for_a_single_run_is_refused_unless_it_gets_values(app: App) -> None:
    assert app("+experiment=per_turn", "+sweep=learning_rate") == 2
    assert app.said().startswith(
        "error: +sweep=learning_rate varies trainer.optimizer.lr over several jobs, and this is a "
        "single run; add -m before"
    )
    assert app("+experiment=per_turn", "+sweep=learning_rate", "trainer.optimizer.lr=0.1") == 0
    assert app("+experiment=per_turn", "+sweep=learning_rate", "--cfg", "job") == 0
    assert len(app.jobs) == 1
    assert app("hydra.mode=MULTIRUN", "+sweep=context_strategies") == 0, app.err
    assert len(app.jobs) == 5


def test_options_after_the_first_key_are_explained(app: App) -> None:
    assert app("seed=2", "-m", "name=a,b") == 2
    assert "before the first KEY=VALUE" in app.said()


def test_parameters_of_a_sweep_in_a_file_are_checked_before_the_first_job(app: App) -> None:
    (app.conf_dir / "experiment/sweep.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      +foo: 1,2\n"
    )
    assert app("-m", "+experiment=sweep") == 2
    assert "error: conf/experiment/sweep.yaml:5: +foo=1,2: there is no key" in app.said()
    assert app.jobs == []


@pytest.mark.road
def test_multirun_goes_on_after_a_failed_job(app: App) -> None:
    app.error = StreamError("stream x: is empty; drop it.")
    assert app("-m", "seed=1,2", "hydra.sweep.dir=sweep") == 2
    assert len(app.jobs) == 2
    assert app.err.count("error: job 0-default-seed1: stream x: is empty") == 1
    assert "Traceback" not in app.err
    table = Path("sweep/table.csv").read_text()
    assert "0-default-seed1,running or failed" in table
    assert "1-default-seed2,done" in table


@pytest.mark.road
def test_multirun_shows_the_traceback_of_a_bug_once(app: App) -> None:
    app.error = RuntimeError("bug")
    assert app("-m", "seed=1,2") == 1
    assert len(app.jobs) == 2
    assert app.err.count("RuntimeError: bug") == 1
