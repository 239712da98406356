from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.paper.__main__ as paper
from benchmarks.paper.__main__ import NUMBERS
from benchmarks.paper.committed import TOLERANCE, Repeat, read_runs, repeats, write_runs
from benchmarks.paper.jobs import make_jobs
from benchmarks.paper.plan import Plan, Row, read_plan
from benchmarks.paper.results import Spread, Study
from benchmarks.paper.run import Run, run_from_line
from benchmarks.paper.runner import Runner
from proassist_lit.errors import ConfigError

PLAN = Plan({"one": Row(name="one", label="One", experiment="e")}, (), {"f1": "F1"})

KEPT = '{"row": "%s", "seed": 1, "split": "val", "metrics": {"f1": 0.5}}'

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
    write_runs(study_of("study", 0.5, 0.75), tmp_path / "runs.jsonl")
    first, second = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert first["metrics"] == {"f1": 0.5}
    assert (second["row"], second["seed"], second["split"]) == ("one", 2, "test")
    assert (second["commit"], second["cpu"], second["metrics"]) == ("abc", "Fast", {"f1": 0.75})


def test_a_kept_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = Run(
        row="one", seed=3, split="test", metrics={"f1": 0.25}, settings=["+experiment=e", "a=1"],
        commit="abc", seconds=2.5, values={"objective.rho": 0.5},
        thresholds={0.25: {"f1": 0.125}}, losses={"train": [[10, 4.0], [20, 2.0]]},
    )  # fmt: skip
    assert run_from_line(run.to_line()) == run


def test_kept_runs_stand_in_for_seeds_that_the_study_lacks(study_of: StudyOf) -> None:
    kept = [Run(row="one", seed=seed, split="test", metrics={"f1": 0.1}) for seed in (3, 2, 1)]
    study = study_of("study", 0.5, 0.75)
    gone = replace(kept[0], row="gone")
    study = Study(study.directory, PLAN, [*kept, gone])

    assert [(run.seed, run.metrics["f1"]) for run in study.runs["one"]] == [
        (1, 0.5), (2, 0.75), (3, 0.1)
    ]  # fmt: skip
    assert study.outdated == [gone]
    assert study.changed == {"one", "gone"}


def test_kept_runs_of_other_settings_than_the_plan_has_are_left_out(study_of: StudyOf) -> None:
    fit = Run(row="one", seed=2, split="test", metrics={"f1": 0.1},
              settings=["+experiment=e", "x=1"])  # fmt: skip
    other = replace(fit, seed=3, settings=["+experiment=f"])
    study = Study(study_of("study", 0.5).directory, PLAN, [fit, other])

    assert [run.seed for run in study.runs["one"]] == [1, 2]
    assert study.outdated == [other]


@pytest.mark.parametrize("fresh", [False, True])
def test_report_adds_to_what_was_kept_unless_it_is_told_not_to(
    fresh: bool, study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "read_plan", lambda: PLAN)
    write_runs(study_of("before", 0.5, 0.75), tmp_path / "results" / "runs.jsonl")
    command = [
        "report",
        str(study_of("now", 0.25).directory),
        "--out",
        str(tmp_path / "results.md"),
    ]
    monkeypatch.setattr("sys.argv", ["paper", *command, *(["--fresh"] if fresh else [])])

    assert paper.main() == 0
    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    assert [run.metrics["f1"] for run in kept] == ([0.25] if fresh else [0.25, 0.75])


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
    write_runs(study_of("kept", 0.5, 0.75), tmp_path / "runs.jsonl")
    (repeat,) = repeats(study_of("mine", 0.625), tmp_path / "runs.jsonl")
    assert repeat == Repeat("one/seed1", "f1", 0.625, Spread((0.5, 0.75)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file.*write it with"),
        (f'{KEPT % "one"}\n{{"row": "one"}}', r"runs.jsonl:2: is no run"),
        ("nonsense", r"runs.jsonl:1: is no run"),
        (KEPT % "two", "none of the rows.*run one of two"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(
    text: str | None, message: str, study_of: StudyOf, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(repeats(study_of("mine", 0.5), path))


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

    found = list(repeats(Study(tmp_path, plan), NUMBERS))
    differ = [str(repeat) for repeat in found if not repeat.agrees]
    assert len(found) > 5
    assert not differ, differ
