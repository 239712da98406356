from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.paper.committed import read_runs
from benchmarks.paper.jobs import Job
from benchmarks.paper.page import write_page
from benchmarks.paper.plots import learning_lines, setting_lines
from benchmarks.paper.results import Study
from benchmarks.paper.run import Run
from proassist_lit.errors import ConfigError
from tests.benchmarks.paper_plans import ROWS, claim, metrics_of, plan_of, study_of, table


def test_page_shows_means_spreads_missing_metrics_and_rows_not_run(tmp_path: Path) -> None:
    plan = plan_of(
        replace(
            table("one", "two", claims=(claim(at_least=0.7),)),
            metrics=("utterance_f1", "baseline/blind/utterance_f1"),
        )
    )
    study = study_of(tmp_path, {"one": (0.5, 0.75, 0.85)}, plan)
    out = tmp_path / "docs" / "results.md"

    assert write_page(plan, study, out) == [out, tmp_path / "docs" / "results" / "runs.jsonl"]
    lines = out.read_text().splitlines()
    assert "| One | 3 | 0.700 ± 0.180 | – |" in lines
    assert "| Two | 0 | not run | not run |" in lines
    assert "Missing: One has no blind F1." in lines
    assert (
        "| the paper's direction | It is so | agrees | 0.700 ± 0.180, ≥ 0.7; 2 of 3 seeds |"
        in lines
    )
    assert "Not yet run: 3 of 4 rows (Two; Again; Cooked)." in lines


def test_page_tells_how_many_tests_it_makes(tmp_path: Path) -> None:
    claims = (claim(at_least=0.7), claim(better="two"), claim(same="two"))
    plan = plan_of(table("one", "two", claims=claims))
    numbers = {"one": (0.5, 0.75), "two": (0.25, 0.5)}
    write_page(plan, study_of(tmp_path, numbers, plan), tmp_path / "results.md")
    assert "none of the 2 tests is corrected" in (tmp_path / "results.md").read_text()


def test_page_tells_on_how_much_its_numbers_rest(tmp_path: Path) -> None:
    plan, out = plan_of(table("one")), tmp_path / "results.md"
    directory = tmp_path / "study" / "one" / "seed1"
    counts = {"matched": 3.0, "mismatched": 2.0, "missed": 5.0, "redundant": 7.0, "correction": 4.0}
    metrics_of(directory, utterance_f1=0.5, **{f"utterance_num_{k}": v for k, v in counts.items()})
    streams = [{"split": split} for split in ("val", "test", "test")]
    (directory / "streams.json").write_text(json.dumps(streams))
    write_page(plan, Study(tmp_path / "study", plan), out)
    told = "Split: test (2 streams, 10 utterances, 4 of them corrections)."
    assert told in out.read_text()

    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    (tmp_path / "empty").mkdir()
    write_page(plan, Study(tmp_path / "empty", plan, kept), out, everything=True)
    assert told in out.read_text()


def test_page_shows_what_the_paper_printed_beside_ours(tmp_path: Path) -> None:
    published = {"paper: F1": {"one": 32.9, "two": 34.0}}
    plan = plan_of(table("one", "two", "again", published=published))
    study = study_of(tmp_path, {"one": (0.5,), "again": (0.25,)}, plan)
    out = tmp_path / "results.md"

    write_page(plan, study, out)
    lines = out.read_text().splitlines()
    assert "| run | n | utterance F1 | *paper: F1* |" in lines
    assert "| One | 1 | 0.500 | *32.9* |" in lines
    assert "| Two | 0 | not run | *34* |" in lines
    assert "| Again | 1 | 0.250 |  |" in lines


def test_page_shows_baselines_once_and_where_numbers_come_from(tmp_path: Path) -> None:
    plan = plan_of(table("one", baselines=True))
    directory = tmp_path / "study" / "one" / "seed1"
    directory.mkdir(parents=True)
    numbers = {"test/utterance_f1": 0.5, "baseline/clock/test/utterance_f1": 0.125}
    (directory / "metrics.json").write_text(json.dumps(numbers | {"similarity": "words-7"}))
    (directory / "notes.json").write_text(json.dumps({"git commit": "abc123"}))
    extra = ("logger.wandb=disabled",)
    Job(row=ROWS["one"], seed=1, study=tmp_path / "study", extra=extra).write_machine(
        {"cpu": "Z80", "cores": 1, "threads": 2, "at_once": 3, "seconds": 7200.0,
         "started": "2026-02-03 04:05:06"}
    )  # fmt: skip
    out = tmp_path / "results.md"
    write_page(plan, Study(tmp_path / "study", plan), out)

    text = out.read_text()
    assert "| *clock* |  | 0.125 |" in text
    assert "- dates: 2026-02-03\n" in text
    assert "- processor: Z80, 1 cores, 2 threads a run\n" in text
    assert "- similarity of words: words-7" in text
    assert "- runs: 1, 2.0 hours of runs in all" in text
    assert "--only TABLE/ROW --seeds 1,2,3 --jobs 1 --set logger.wandb=disabled\n" in text
    shown = "| `first/one` | `+experiment=per_token f1=0.5` | 1 | abc123 | 2026-02-03 | 7200 s |"
    assert shown in text


def test_page_says_what_was_looked_into_of_what_was_run(tmp_path: Path) -> None:
    tables = [replace(table(n), name=n, found=f"Why {n} is so.") for n in ("one", "two")]
    plan = plan_of(*tables)
    out = tmp_path / "results.md"
    write_page(plan, study_of(tmp_path, {"one": (0.5,)}, plan), out)
    assert out.read_text().count("*Looked into.* Why one is so.") == 1
    assert "Why two" not in out.read_text()


def test_every_trained_row_has_its_own_blind_self(tmp_path: Path) -> None:
    plan = plan_of(table("one", "two", "again", baselines=True))
    for row, value in (("one", 0.25), ("two", 0.125), ("again", 0.75)):
        folder = tmp_path / "study" / row / "seed1"
        folder.mkdir(parents=True)
        numbers = {
            "test/utterance_f1": 0.5, "baseline/clock/test/utterance_f1": 0.0625,
            "baseline/blind/test/utterance_f1": value,
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(numbers))
    out = tmp_path / "results.md"
    write_page(plan, Study(tmp_path / "study", plan), out)
    shown = [line for line in out.read_text().splitlines() if line.startswith("| *")]
    assert shown == [
        "| *blind* (One) |  | 0.250 |", "| *blind* (Two) |  | 0.125 |", "| *clock* |  | 0.062 |",
    ]  # fmt: skip


def test_page_takes_the_commit_that_was_told_where_git_could_not(tmp_path: Path) -> None:
    plan = plan_of(table("one"))
    directory = tmp_path / "study" / "one" / "seed1"
    metrics_of(directory, utterance_f1=0.5)
    (directory / "notes.json").write_text(json.dumps({"git commit": "unknown"}))
    (directory / "machine.json").write_text(json.dumps({"commit": "abc123"}))
    write_page(plan, Study(tmp_path / "study", plan), tmp_path / "results.md")

    assert "f1=0.5` | 1 | abc123 |" in (tmp_path / "results.md").read_text()


def test_page_draws_a_setting_and_thresholds(tmp_path: Path) -> None:
    plan = plan_of(
        table("one", "two", curve="objective.rho", log=True),
        table("again", name="thetas", thresholds=True),
    )
    for row, rho in (("one", 1.0), ("two", 0.1), ("again", 1.0)):
        directory = tmp_path / "study" / row / "seed1"
        metrics_of(directory, utterance_f1=rho / 2)
        config = {"objective": {"rho": rho}, "evaluation": {"sweep_speak": [0.25, 0.75, 0.8]}}
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
    points = [
        (0.75, 0.5, 0.375),
        (0.8, 0.5, 0.375),
        (0.25, 0.5, 0.625),
        (0.31, 0.5, 1.0),
        (0.25, 0.9, 1.0),
    ]
    (tmp_path / "study" / "again" / "seed1" / "sweep.json").write_text(
        json.dumps(
            [
                {"split": "val", "theta_speak": s, "theta_dst": d, "metrics": {"utterance_f1": f}}
                for s, d, f in points
            ]
        )
    )
    out = tmp_path / "results.md"
    written = write_page(plan, Study(tmp_path / "study", plan), out)

    names = ["results.md", "runs.jsonl", "first.png", "thetas.png"]
    assert [path.name for path in written] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[2:])
    assert "| 0.25 | 0.625 |\n| 0.75 to 0.8 | 0.375 |\n" in out.read_text()
    assert "0.31" not in out.read_text()  # what calibration adds differs from run to run
    assert "![First](results/first.png)" in out.read_text()

    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    (tmp_path / "empty").mkdir()
    again = tmp_path / "again.md"
    write_page(plan, Study(tmp_path / "empty", plan, kept), again)
    assert again.read_text() == out.read_text().replace("(results/", "(again/")
    for name in names[2:]:
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "results" / name
        ).read_bytes()


def test_thresholds_that_make_no_difference_are_not_drawn(tmp_path: Path) -> None:
    plan = plan_of(table("one", thresholds=True))

    def run(seed: int, last: float) -> Run:
        shares = {0.25: 0.5, 0.5: 0.5 + 1e-5, 0.75: last}
        thresholds = {theta: {"utterance_f1": share} for theta, share in shares.items()}
        return Run(row="one", seed=seed, split="val", metrics={}, thresholds=thresholds)

    (tmp_path / "study").mkdir()
    for last, drawn in ((0.5, False), (0.75, True)):
        study = Study(tmp_path / "study", plan, [run(1, last), run(2, last)])
        assert (tmp_path / "results" / "first.png" in write_page(
            plan, study, tmp_path / "results.md", everything=True
        )) is drawn  # fmt: skip
        assert ("first.png" in (tmp_path / "results.md").read_text()) is drawn


def test_sections_of_which_nothing_was_run_stay_as_they_are(tmp_path: Path) -> None:
    tables = [replace(table(n), name=n, title=f"About {n}") for n in ("one", "two")]
    out = tmp_path / "results.md"
    numbers = {"one": (0.5,), "two": (0.25,)}
    write_page(plan_of(*tables), study_of(tmp_path, numbers, plan_of()), out)
    out.write_text(out.read_text().replace("| 1 | 0.", "| 1 | 7."))

    mended = plan_of(*(replace(t, about="Mended.") for t in tables))
    (tmp_path / "later").mkdir()
    metrics_of(tmp_path / "later" / "two" / "seed1", utterance_f1=0.75)
    study = Study(tmp_path / "later", mended, read_runs(tmp_path / "results" / "runs.jsonl"))
    write_page(mended, study, out)
    text = out.read_text()
    assert "| One | 1 | 7.500 |" in text
    assert "| Two | 1 | 0.750 |" in text
    assert (text.count("About."), text.count("Mended.")) == (1, 1)
    assert text.count("## Where the numbers come from") == 1

    out.write_text(text.replace("| 1 | 0.", "| 1 | 8."))
    for _ in range(2):
        write_page(mended, study, out, only=["one"])
    text = out.read_text()
    assert "| Two | 1 | 8.750 |" in text
    note = "since this section was written: Two. Compare the figures here with each other only."
    assert text.count(note) == 1

    write_page(mended, study, out, everything=True)
    assert "| One | 1 | 0.500 |" in out.read_text()
    assert note not in out.read_text()

    (tmp_path / "nothing").mkdir()
    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    other = [replace(run, settings=["x=1"]) if run.row == "one" else run for run in kept]
    write_page(mended, Study(tmp_path / "nothing", mended, other), out)
    assert "| One | 0 | not run |" in out.read_text()


def started(row: str, minute: int) -> Run:
    time = f"2026-11-27 01:{minute}:00"
    return Run(row=row, seed=1, split="test", metrics={"utterance_f1": 0.5}, started=time)


def test_runs_of_before_are_marked_and_so_are_those_that_evaluate_one(tmp_path: Path) -> None:
    plan = replace(plan_of(table("one", "two", "again")), since={"toy": "2026-11-27 01:30"})
    (tmp_path / "study").mkdir()
    runs = [started("one", 50), started("two", 29), started("again", 40)]
    out = tmp_path / "results.md"

    write_page(plan, Study(tmp_path / "study", plan, runs), out)
    text = out.read_text()
    assert all(f"| {label} | 1 | 0.500 |" in text for label in ("One", "Two †", "Again †"))
    assert "† Older, of other data or settings than those of today" in text

    plan = replace(plan, since={"captaincook4d": "2026-11-27 01:59"})
    write_page(plan, Study(tmp_path / "study", plan, [started("two", 29)]), out, everything=True)
    assert "†" not in out.read_text()


def test_a_section_that_stays_tells_which_of_its_runs_are_of_before(tmp_path: Path) -> None:
    plan = plan_of(table("one", "again"))
    runs = [started("one", 20), started("again", 40)]
    (tmp_path / "study").mkdir()
    out = tmp_path / "results.md"
    write_page(plan, Study(tmp_path / "study", plan, runs), out)
    assert "Older" not in out.read_text()

    plan = replace(plan, since={"toy": "2026-11-27 01:30"})
    write_page(plan, Study(tmp_path / "study", plan, runs), out)
    assert "*Older runs.* Of other data or settings" in out.read_text()
    assert "was written: One. Compare" in out.read_text()

    plan = replace(plan, since={"toy": "2026-11-27 01:45"})
    write_page(plan, Study(tmp_path / "study", plan, runs), out)
    assert "was written: One; Again. Compare" in out.read_text()
    assert out.read_text().count("Older runs.") == 1


def test_a_section_that_stays_tells_of_all_rows_that_were_run_again(tmp_path: Path) -> None:
    plan, out = plan_of(table("one", "two", "cooked")), tmp_path / "results.md"
    (tmp_path / "study").mkdir()
    kept = [started(row, 20) for row in ("one", "two", "cooked")]
    write_page(plan, Study(tmp_path / "study", plan, kept), out)
    again = (("two", 0.25, "Two"), ("one", 0.125, "Two; One"), ("two", 0.75, "Two; One"))
    for row, value, told in again:
        metrics_of(tmp_path / f"{value}" / row / "seed1", utterance_f1=value)
        kept = read_runs(tmp_path / "results" / "runs.jsonl")
        write_page(plan, Study(tmp_path / f"{value}", plan, kept), out, only=["other"])
        assert f"section was written: {told}. Compare the figures" in out.read_text()
    assert out.read_text().count("Older runs.") == 1


def test_what_evaluates_a_row_that_was_run_again_is_older(tmp_path: Path) -> None:
    plan = plan_of(table("again"))
    kept = [started("one", 20), started("again", 40)]
    (tmp_path / "study").mkdir()
    out = tmp_path / "results.md"
    write_page(plan, Study(tmp_path / "study", plan, kept), out)
    metrics_of(tmp_path / "study" / "one" / "seed1", utterance_f1=0.75)
    write_page(plan, Study(tmp_path / "study", plan, kept), out, only=["other"])
    assert "was written: Again. Compare" in out.read_text()


def test_the_same_runs_read_again_are_not_older(tmp_path: Path) -> None:
    tables = [replace(table(n), name=n, title=f"About {n}") for n in ("one", "two")]
    plan, out = plan_of(*tables), tmp_path / "results.md"
    write_page(plan, study_of(tmp_path, {"one": (0.5,), "two": (1 / 3,)}, plan), out)
    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    write_page(plan, Study(tmp_path / "study", plan, kept), out, only=["one"])
    assert "Older" not in out.read_text()


def test_page_draws_how_the_losses_fell(tmp_path: Path) -> None:
    plan = plan_of(table("one", "again", learning=True))
    for row, seed, losses in (("one", 1, "4,,2"), ("one", 2, "6,,"), ("again", 1, "9,,9")):
        directory = tmp_path / "study" / row / f"seed{seed}"
        metrics_of(directory, utterance_f1=0.5)
        train, _, val = losses.split(",")
        (directory / "metrics.csv").write_text(f"step,train/loss,val/loss\n9,{train},{val}\n")
    study = Study(tmp_path / "study", plan)

    lines = learning_lines(plan.tables[0], study, plan)
    assert {name: {x: s.values for x, s in points.items()} for name, points in lines.items()} == {
        "One: train": {10: (4.0, 6.0)}, "One: val": {10: (2.0,)}
    }  # fmt: skip  # the row that only evaluates learnt nothing
    assert tmp_path / "results" / "first_learning.png" in write_page(
        plan, study, tmp_path / "results.md"
    )
    kept = read_runs(tmp_path / "results" / "runs.jsonl")
    (tmp_path / "empty").mkdir()
    assert learning_lines(plan.tables[0], Study(tmp_path / "empty", plan, kept), plan) == lines


def test_study_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study: is no directory; run the study first"):
        Study(tmp_path / "study", plan_of())
    metrics_of(tmp_path / "study" / "one" / "seed1")
    (tmp_path / "study" / "one" / "seed1" / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match=r"one/seed1: .*; run it again, or take it out"):
        Study(tmp_path / "study", plan_of())


def test_a_curve_of_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "study" / "one" / "seed1"
    metrics_of(directory, utterance_f1=0.5)
    (directory / "config.yaml").write_text("objective: {rho: 1}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: has no objective\.roh; mend the plan\.$"):
        Study(tmp_path / "study", plan_of(table("one", curve="objective.roh")))


def test_kept_runs_without_the_setting_of_a_curve_are_told_of(tmp_path: Path) -> None:
    drawn = table("one", curve="objective.rho")
    (tmp_path / "study").mkdir()
    kept = [Run(row="one", seed=1, split="test", metrics={"utterance_f1": 0.5})]
    plan = plan_of(drawn)
    with pytest.raises(ConfigError, match=r"kept runs of one have no objective\.rho.*run the row"):
        setting_lines(drawn, Study(tmp_path / "study", plan, kept), plan)
