from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import benchmarks.paper.__main__ as paper
from benchmarks.paper import jobs as paper_jobs
from benchmarks.paper import runner
from benchmarks.paper.jobs import Job, make_jobs
from benchmarks.paper.plan import Row
from benchmarks.paper.runner import Outcome, Runner, exit_code, summary
from proassist_lit.errors import ConfigError
from tests.benchmarks.paper_plans import ROWS, metrics_of, with_set

STUB = """
import json, os, signal, sys, time
from pathlib import Path
args = dict(a.lstrip("+").split("=", 1) for a in sys.argv[1:] if "=" in a)
evaluates = "--out" in sys.argv
out = Path(sys.argv[sys.argv.index("--out") + 1] if evaluates else args["hydra.run.dir"])
with (out.parents[1] / "order.txt").open("a") as file:
    file.write(f"{out.parent.name}/{out.name}\\n")
print("threads", os.environ["OMP_NUM_THREADS"])
if args.get("fails") == "yes":
    sys.exit(3)
if args.get("waits") == "yes":
    try:
        if "signal" in args:
            os.kill(os.getppid(), int(args["signal"]))
        signal.pause()
    except KeyboardInterrupt:
        (out / "gently").touch()
        sys.exit(130)
if args.get("silent") != "yes":
    base = json.loads((Path(sys.argv[1]) / "metrics.json").read_text()) if evaluates else {}
    value = base.get("test/utterance_f1", 0.0) + float(args.get("f1", 0.0))
    metrics = {"test/utterance_f1": value + int(args.get("seed", 0)) / 100}
    (out / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(autouse=True)
def _stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in place of train.py and of proassist-lit evaluate."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    monkeypatch.setattr(paper_jobs, "TRAIN", [sys.executable, str(stub)])
    monkeypatch.setattr(paper_jobs, "EVALUATE", [sys.executable, str(stub)])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Outcome]:
    def run_rows(*rows: Row, seeds: tuple[int, ...] = (1,), **settings: object) -> Outcome:
        jobs = make_jobs(rows, tmp_path / "study", seeds=seeds)
        lines: list[str] = []
        runner = Runner(jobs, **{"at_once": 2, "threads": 3, "say": lines.append} | settings)  # type: ignore[arg-type]
        outcome = runner.run()
        (tmp_path / "said.txt").write_text("\n".join(lines))
        return outcome

    return run_rows


def order(tmp_path: Path) -> list[str]:
    return (tmp_path / "study" / "order.txt").read_text().split()


def test_run_leaves_metrics_log_and_machine(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    outcome = run(ROWS["one"], seeds=(2,))

    directory = tmp_path / "study" / "one" / "seed2"
    machine = json.loads((directory / "machine.json").read_text())
    assert exit_code(outcome) == 0
    assert json.loads((directory / "metrics.json").read_text()) == {"test/utterance_f1": 0.52}
    assert "threads 3" in (directory / "log.txt").read_text()
    assert machine["settings"] == ["+experiment=per_token", "f1=0.5"]
    assert f"data.cache={tmp_path / 'study' / 'data'}" in machine["command"]
    assert "resume=auto" in machine["command"]
    assert (machine["threads"], machine["at_once"]) == (3, 2)
    assert machine["seconds"] > 0


def test_finished_runs_are_skipped(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    run(ROWS["one"], seeds=(1,))
    outcome = run(ROWS["one"], seeds=(1, 2))

    assert [job.name for job in outcome.skipped] == ["one/seed1"]
    assert [job.name for job in outcome.done] == ["one/seed2"]
    assert order(tmp_path) == ["one/seed1", "one/seed2"]


def test_a_run_with_other_settings_is_not_taken_for_this_one(run: Callable[..., Outcome]) -> None:
    run(ROWS["one"])
    with pytest.raises(ConfigError, match=r"one/seed1: was run with other.*f1=0\.5 f1=0\.7.*mov"):
        run(with_set("one", "f1=0.7"))


def test_a_failed_run_is_named_with_its_log_and_the_others_go_on(
    tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    outcome = run(with_set("one", "fails=yes"), ROWS["two"], ROWS["again"])

    log = tmp_path / "study" / "one" / "seed1" / "log.txt"
    assert exit_code(outcome) == 1
    assert [job.name for job in outcome.done] == ["two/seed1"]
    assert f"one/seed1: exit code 3; see {log}" in summary(outcome)
    assert "again/seed1: the run that it evaluates failed" in summary(outcome)


def test_a_run_that_leaves_no_metrics_failed(run: Callable[..., Outcome]) -> None:
    assert "it left no metrics.json" in summary(run(with_set("one", "silent=yes")))


def test_evaluations_wait_for_their_run_and_read_it(
    tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    run(ROWS["again"], ROWS["one"], at_once=4)

    found = json.loads((tmp_path / "study/again/seed1/metrics.json").read_text())
    assert order(tmp_path) == ["one/seed1", "again/seed1"]
    assert found == {"test/utterance_f1": 0.51 - 0.125}


def test_evaluations_of_one_run_are_not_at_once(
    tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    second = replace(ROWS["again"], name="second")
    metrics_of(tmp_path / "study" / "one" / "seed1", utterance_f1=0.5)
    runner = Runner(
        make_jobs([ROWS["again"], second], tmp_path / "study", seeds=(1,)),
        at_once=4, threads=1, say=lambda _: None,
    )  # fmt: skip
    runner._start_ready()

    assert len(runner._running) == 1
    runner.run()
    assert order(tmp_path) == ["again/seed1", "second/seed1"]


def test_an_evaluation_of_a_run_that_nobody_makes_fails(run: Callable[..., Outcome]) -> None:
    assert "holds no metrics.json to evaluate" in summary(run(ROWS["again"]))


def test_progress_tells_runs_done_and_time_left(
    tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    run(ROWS["one"], ROWS["two"], at_once=1)

    first, second = (tmp_path / "said.txt").read_text().splitlines()
    assert first.startswith("[1/2] two/seed1 took ")  # the longest first
    assert first.endswith(" min left")
    assert second.startswith("[2/2] one/seed1 took ")


def test_time_left_counts_costs(tmp_path: Path) -> None:
    jobs = make_jobs([ROWS["one"], ROWS["two"]], tmp_path, seeds=(1,))
    runner = Runner(jobs, at_once=1, threads=1)
    runner._spent_s, runner._done_cost = 60.0, 0.5

    assert runner.left_s() == pytest.approx(120 * 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_runs_gently(
    number: signal.Signals, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    outcome = run(with_set("one", "waits=yes", f"signal={number.value}"), ROWS["again"])

    assert exit_code(outcome) == 130
    assert (tmp_path / "study" / "one" / "seed1" / "gently").exists()
    assert "stopped before the end" in summary(outcome)


def test_a_study_ends_when_its_time_is_over(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    outcome = run(with_set("one", "waits=yes"), seconds=0.0)

    assert exit_code(outcome) == 130
    assert not (tmp_path / "study" / "one" / "seed1" / "metrics.json").exists()


@pytest.mark.road
def test_what_a_run_takes_is_added_up_and_survives_a_kill(
    tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "NOTED_EVERY_S", 0.0)
    noted: list[float] = []
    write = Job.write_machine

    def noting(self: Job, notes: Mapping[str, Any]) -> None:
        noted.extend([notes["seconds"]] if "seconds" in notes else [])
        write(self, notes)

    monkeypatch.setattr(Job, "write_machine", noting)
    run(with_set("one", "waits=yes"), seconds=0.5)
    assert len(noted) > 2  # while it ran
    assert noted == sorted(noted)
    before = noted[-1]
    run(with_set("one", "waits=yes"), seconds=0.2)
    assert noted[-1] > before + 0.1


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    own = replace(ROWS["two"], seeds=(1,))
    jobs = make_jobs([ROWS["again"], ROWS["one"], own], tmp_path, seeds=(2, 1))

    assert [job.name for job in jobs] == [
        "one/seed2", "again/seed2", "two/seed1", "one/seed1", "again/seed1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--jobs", "0", "'0' is not a whole number of at least 1"),
        ("--jobs", "-1", "'-1' is not a whole number of at least 1"),
        ("--threads", "0", "'0' is not a whole number of at least 1"),
        ("--minutes", "0", "0 is not a finite number above 0; leave it out for no limit"),
        ("--minutes", "-5", "-5 is not a finite number above 0"),
        ("--minutes", "nan", "nan is not a finite number above 0"),
        ("--minutes", "inf", "inf is not a finite number above 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    option: str, value: str, said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    typed = ["paper", "run", str(tmp_path / "study"), "--only", "nothing", f"{option}={value}"]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as exit_:
        paper.main()
    assert exit_.value.code == 2
    assert f"argument {option}: {said}" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
