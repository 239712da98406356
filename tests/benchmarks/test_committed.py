from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.paper.__main__ import NUMBERS
from benchmarks.paper.committed import TOLERANCE, Repeat, repeats, write_runs
from benchmarks.paper.jobs import make_jobs
from benchmarks.paper.plan import Plan, Row, read_plan
from benchmarks.paper.results import Spread, Study
from benchmarks.paper.runner import Runner
from proassist_lit.errors import ConfigError

PLAN = Plan({"one": Row(name="one", label="One", experiment="e")}, (), {"f1": "F1"})

StudyOf = Callable[..., Study]


@pytest.fixture
def study_of(tmp_path: Path) -> StudyOf:
    """A study whose row ``one`` has these values of ``f1``, by seed."""

    def study(name: str, *values: float) -> Study:
        (tmp_path / name).mkdir()
        for seed, value in enumerate(values, start=1):
            directory = tmp_path / name / "one" / f"seed{seed}"
            directory.mkdir(parents=True)
            (directory / "metrics.json").write_text(json.dumps({"test/f1": value, "test/f2": 1}))
            (directory / "machine.json").write_text(json.dumps({"commit": "abc", "cpu": "Fast"}))
        return Study(tmp_path / name, PLAN)

    return study


def test_runs_are_kept_with_seed_commit_and_the_numbers_of_the_plan(
    study_of: StudyOf, tmp_path: Path
) -> None:
    write_runs(PLAN, study_of("study", 0.5, 0.75), tmp_path / "runs.jsonl")
    first, second = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert first["metrics"] == {"f1": 0.5}
    assert (second["row"], second["seed"], second["split"]) == ("one", 2, "test")
    assert (second["commit"], second["cpu"], second["metrics"]) == ("abc", "Fast", {"f1": 0.75})


@pytest.mark.parametrize(
    ("value", "kept", "agrees"),
    [
        (0.5, (0.5,), True),
        (0.5 + 0.9 * TOLERANCE, (0.5,), True),
        (0.5 + 1.1 * TOLERANCE, (0.5,), False),
        (0.5 - 1.1 * TOLERANCE, (0.5,), False),
        (0.7, (0.4, 0.6), True),  # the spread of a seed is 0.14
        (0.95, (0.4, 0.6), False),
        (None, (0.5,), False),
    ],
)
def test_a_number_agrees_within_the_spread_of_a_seed(
    value: float | None, kept: tuple[float, ...], agrees: bool
) -> None:
    repeat = Repeat("one/seed1", "f1", value, Spread(kept))
    assert repeat.agrees is agrees
    assert ("agrees" if agrees else "DIFFERS") in str(repeat)


def test_runs_are_compared_with_all_that_were_kept(study_of: StudyOf, tmp_path: Path) -> None:
    write_runs(PLAN, study_of("kept", 0.5, 0.75), tmp_path / "runs.jsonl")
    (repeat,) = repeats(PLAN, study_of("mine", 0.625), tmp_path / "runs.jsonl")
    assert repeat == Repeat("one/seed1", "f1", 0.625, Spread((0.5, 0.75)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file.*write it with"),
        ('{"row": "one", "metrics": {"f1": 0.5}}\n{"row": "one"}', r"runs.jsonl:2: is no run"),
        ("nonsense", r"runs.jsonl:1: is no run"),
        ('{"row": "two", "metrics": {"f1": 0.5}}', "none of the rows.*run one of two"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(
    text: str | None, message: str, study_of: StudyOf, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(repeats(PLAN, study_of("mine", 0.5), path))


@pytest.mark.slow
def test_a_row_of_the_page_can_be_had_again(tmp_path: Path) -> None:
    """Trains and evaluates the first row of the page, as ``python -m benchmarks.paper run`` does.

    Some four minutes on two cores.
    """
    plan = read_plan()
    settings = ["logger.wandb=disabled", "trainer.accelerator=cpu"]
    rows = [plan.rows[plan.tables[0].rows[0]]]
    jobs = make_jobs(rows, tmp_path, seeds=(1,), extra=settings)
    outcome = Runner(jobs, at_once=1, threads=2).run()
    assert not outcome.failed, outcome.failed

    found = list(repeats(plan, Study(tmp_path, plan), NUMBERS))
    differ = [str(repeat) for repeat in found if not repeat.agrees]
    assert len(found) > 5
    assert not differ, differ
