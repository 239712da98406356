from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.paper import jobs as paper_jobs
from benchmarks.paper.jobs import Job, make_jobs
from benchmarks.paper.page import write_page
from benchmarks.paper.plan import PLAN, Claim, Plan, Row, Table, read_plan
from benchmarks.paper.plots import learning_lines
from benchmarks.paper.results import Spread, Study, chance_of
from benchmarks.paper.runner import Outcome, Runner, exit_code, summary
from benchmarks.paper.settings import check_rows, prepare_data
from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.generate import generated_folder
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import ConfigError
from proassist_lit.metrics.directions import DIRECTIONS, Direction

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

ROWS = {
    "one": Row(name="one", label="One", experiment="per_token", set=("f1=0.5",)),
    "two": Row(name="two", label="Two", experiment="per_token", set=("f1=0.25",), cost=2.0),
    "again": Row(name="again", label="Again", of="one", set=("f1=-0.125",)),
    "cooked": Row(name="cooked", label="Cooked", experiment="per_token", cook=True),
}
METRICS = {"utterance_f1": "utterance F1", "baseline/blind/utterance_f1": "blind F1"}


def plan_of(*tables: Table, rows: Mapping[str, Row] = ROWS) -> Plan:
    return Plan(rows, tables, METRICS)


def table(*rows: str, name: str = "first", **settings: object) -> Table:
    return Table(
        name=name, title="First", about="About.", paper="Found.", rows=rows,
        metrics=("utterance_f1",), **settings,  # type: ignore[arg-type]
    )  # fmt: skip


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


def with_set(row: str, *texts: str) -> Row:
    return replace(ROWS[row], set=texts)


def order(tmp_path: Path) -> list[str]:
    return (tmp_path / "study" / "order.txt").read_text().split()


def metrics_of(directory: Path, **values: float) -> None:
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(
        json.dumps({f"test/{name}": value for name, value in values.items()})
    )


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


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    own = replace(ROWS["two"], seeds=(1,))
    jobs = make_jobs([ROWS["again"], ROWS["one"], own], tmp_path, seeds=(2, 1))

    assert [job.name for job in jobs] == [
        "one/seed2", "again/seed2", "two/seed1", "one/seed1", "again/seed1",
    ]  # fmt: skip


def test_select_takes_tables_and_rows_with_what_they_evaluate() -> None:
    plan = plan_of(table("two"), table("again", name="more"), table("cooked", name="c", cook=True))

    def names(*only: str, cook: bool = False, without: tuple[str, ...] = ()) -> list[str]:
        return [row.name for row in plan.select(only, cook=cook, without=without)]

    assert names() == ["one", "two", "again"]
    assert names(cook=True) == ["one", "two", "again", "cooked"]
    assert names("more/again") == ["one", "again"]
    assert names("first") == ["two"]
    assert names(without=("more",)) == ["two"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("firt", r"--only firt: there is no table 'firt'; the nearest is 'first'"),
        ("first/tow", r"--only first/tow: there is no row 'tow'; the nearest is 'two'"),
        ("c", r"--only: cooked needs the annotation files of CaptainCook4D; name .* --cook DIR"),
    ],
)
def test_select_refuses_what_is_not_there(only: str, message: str) -> None:
    plan = plan_of(table("two"), table("cooked", name="c", cook=True))
    with pytest.raises(ConfigError, match=message):
        plan.select([only], cook=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"a": {"label": "A", "experiment": "x", "sett": []}}}, "no key 'sett'.*'set'"),
        ({"rows": {"a": {"experiment": "x"}}}, r"row a: has no label; add it"),
        ({"rows": {"a": {"label": "A"}}}, r"row a: give it an experiment, or a row"),
        ({"rows": {"a": {"label": "A", "of": "b"}}}, r"row a: of 'b' is no row that trains"),
        ({"rows": {"a": {"label": "A", "experiment": "x", "set": ["k"]}}}, "'k' is no KEY=VALUE"),
        ({"tables": [{"rows": ["b"]}]}, r"table t: there is no row 'b'"),
        ({"tables": [{"metrics": ["f2"]}]}, r"table t: there is no metric 'f2'"),
        ({"tables": [{"cook": True}]}, r"table t: row a differs in cook"),
        ({"tables": [{"published": {"F1": {"b": 1.0}}}]}, r"published 'F1': there is no row 'b'"),
        (
            {"tables": [{"claims": [{"says": "s", "metric": "f1", "row": "a"}]}]},
            r"the claim 's' needs one of better, same",
        ),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    whole = {"name": "t", "title": "T", "about": "", "paper": "", "rows": ["a"], "metrics": ["f1"]}
    data: dict[str, object] = {
        "metrics": {"f1": "F1"}, "tables": [{}],
        "rows": {"a": {"label": "A", "experiment": "x"}},
    } | change  # fmt: skip
    data["tables"] = [whole | entry for entry in data["tables"]]  # type: ignore[attr-defined]
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        read_plan(path)


def test_the_plan_is_right_and_every_row_composes(tmp_path: Path) -> None:
    plan = read_plan(PLAN)
    jobs = make_jobs(plan.select([], cook=True), tmp_path, seeds=(1,), root=tmp_path)

    assert len(check_rows(jobs)) == len(plan.rows)
    assert {name for table in plan.tables for name in table.rows} == set(plan.rows)


def test_rows_with_unknown_settings_are_all_named(tmp_path: Path) -> None:
    rows = [
        with_set("one", "objective.roh=0.1"),
        with_set("two"),
        Row(name="three", label="", of="two", set=("stream.stategy=drop_all",)),
    ]
    with pytest.raises(ConfigError, match=r"row one: .*objective\.rho.*\nrow three: .*strategy"):
        check_rows(make_jobs(rows, tmp_path, seeds=(1,)))


def test_data_is_drawn_once_and_not_where_it_is_prepared(tmp_path: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    drawn = DataConfig(toy=toy, cache=str(tmp_path / "data"))
    prepared = DataConfig(source="proassist", root=str(tmp_path))
    configs = [RunConfig(data=drawn), RunConfig(data=drawn), RunConfig(data=prepared)]
    said: list[str] = []

    prepare_data(configs, said.append)
    folder = generated_folder(drawn)
    assert said == [f"drawing {folder}"]
    assert (folder / "manifest.json").is_file()

    prepare_data(configs, said.append)
    assert len(said) == 1


def study_of(tmp_path: Path, values: Mapping[str, tuple[float, ...]], plan: Plan) -> Study:
    for row, numbers in values.items():
        for seed, value in enumerate(numbers, start=1):
            metrics_of(tmp_path / "study" / row / f"seed{seed}", utterance_f1=value)
    return Study(tmp_path / "study", plan)


def claim(**settings: object) -> Claim:
    return Claim(says="It is so", metric="utterance_f1", row="one", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "one", "two", "verdict"),
    [
        (claim(better="two"), (0.8, 0.81, 0.82), (0.5, 0.51, 0.52), "agrees"),
        (claim(better="two"), (0.5, 0.51, 0.52), (0.8, 0.81, 0.82), "does not agree"),
        (claim(better="two"), (0.5, 0.9, 0.7), (0.5, 0.8, 0.6), "agrees, within chance"),
        (claim(better="two"), (0.8,), (0.5,), "agrees, within chance"),
        (claim(better="two"), (0.5, 0.5), (0.5, 0.5), "does not agree, within chance"),
        (claim(same="two"), (0.5, 0.9, 0.7), (0.5, 0.8, 0.6), "agrees: no difference seen"),
        (claim(same="two"), (0.8, 0.81, 0.82), (0.5, 0.51, 0.52), "does not agree"),
        (claim(same="two"), (0.8,), (0.5,), "one seed: not told"),
        (claim(at_least=0.9), (0.8, 1.0), (), "agrees"),
        (claim(at_least=0.9), (0.8, 0.9), (), "does not agree"),
        (claim(at_most=0.9), (0.8, 1.0), (), "agrees"),
        (claim(at_most=0.5, share_of_own="utterance_f1"), (0.8, 1.0), (), "does not agree"),
        (claim(better="two"), (0.8, 1.0), (), "not run"),
        (claim(at_least=0.9), (), (), "not run"),
    ],
)
def test_claims_are_computed(
    made: Claim, one: tuple[float, ...], two: tuple[float, ...], verdict: str, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    study = study_of(tmp_path, {"one": one, "two": two}, plan_of())
    assert study.judge(made).verdict == verdict


def test_less_is_better_where_the_metric_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, {"one": (0.5, 0.51), "two": (0.8, 0.81)}, plan_of())
    assert study.judge(claim(better="two")).verdict == "does not agree"
    monkeypatch.setitem(DIRECTIONS, "utterance_f1", Direction.LOWER)
    assert study.judge(claim(better="two")).verdict == "agrees"


def test_chance_is_that_of_welch() -> None:
    # t = 0.3 / sqrt(2 * 0.01^2 / 3) = 36.7 with 4 degrees of freedom; p from a table of t
    assert chance_of(Spread((0.5, 0.51, 0.52)), Spread((0.8, 0.81, 0.82))) == pytest.approx(
        3.2e-6, rel=0.05
    )


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
    assert "| ours | It is so | agrees | 0.700 ± 0.180, ≥ 0.7 |" not in lines  # whose: the paper
    assert "| the paper's direction | It is so | agrees | 0.700 ± 0.180, ≥ 0.7 |" in lines
    assert "Of 4 rows 3 are not run." in lines


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
    Job(row=ROWS["one"], seed=1, study=tmp_path / "study").write_machine(
        {"cpu": "Z80", "cores": 1, "threads": 2, "at_once": 3, "seconds": 7200.0,
         "started": "2026-02-03 04:05:06"}
    )  # fmt: skip
    (tmp_path / "study" / "study.json").write_text(json.dumps({"commands": [["python", "-m"]]}))
    out = tmp_path / "results.md"
    write_page(plan, Study(tmp_path / "study", plan), out)

    text = out.read_text()
    assert "| *clock* |  | 0.125 |" in text
    assert "- commit: abc123\n- dates: 2026-02-03\n" in text
    assert "- processor: Z80, 1 cores, 2 threads a run, 3 runs at once" in text
    assert "- similarity of words: words-7" in text
    assert "- runs: 1, 2.0 hours of runs in all" in text
    assert "```bash\npython -m\n```" in text
    assert "| `one` | `+experiment=per_token f1=0.5` | 7200 s |" in text


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


def test_page_does_not_tell_folders_of_the_machine(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"short": (0.5,)}, plan_of(table("short")))
    line = ["python", "-m", "benchmarks.paper", "run", "/home/me/study", "--cook", "/mnt/cook"]
    text = json.dumps({"commands": [[*line, "--seeds", "1"]]})
    (study.directory / "study.json").write_text(text)
    assert study.commands == ["python -m benchmarks.paper run DIR --cook DIR --seeds 1"]


def test_page_takes_the_commit_that_was_told_where_git_could_not(tmp_path: Path) -> None:
    plan = plan_of(table("one"))
    directory = tmp_path / "study" / "one" / "seed1"
    metrics_of(directory, utterance_f1=0.5)
    (directory / "notes.json").write_text(json.dumps({"git commit": "unknown"}))
    (directory / "machine.json").write_text(json.dumps({"commit": "abc123"}))
    write_page(plan, Study(tmp_path / "study", plan), tmp_path / "results.md")

    assert "- commit: abc123\n" in (tmp_path / "results.md").read_text()


def test_page_draws_a_setting_and_thresholds(tmp_path: Path) -> None:
    plan = plan_of(
        table("one", "two", curve="objective.rho", log=True),
        table("again", name="thetas", thresholds=True),
    )
    for row, rho in (("one", 1.0), ("two", 0.1), ("again", 1.0)):
        directory = tmp_path / "study" / row / "seed1"
        metrics_of(directory, utterance_f1=rho / 2)
        config = {"objective": {"rho": rho}, "evaluation": {"sweep_speak": [0.25, 0.75]}}
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
    points = [(0.75, 0.5, 0.375), (0.25, 0.5, 0.625), (0.31, 0.5, 1.0), (0.25, 0.9, 1.0)]
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
    assert "| 0.25 | 0.625 |\n| 0.75 | 0.375 |\n" in out.read_text()
    assert "0.31" not in out.read_text()  # what calibration adds differs from run to run
    assert "![First](results/first.png)" in out.read_text()


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


def test_study_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study: is no directory; run the study first"):
        Study(tmp_path / "study", plan_of())
    metrics_of(tmp_path / "study" / "one" / "seed1")
    (tmp_path / "study" / "one" / "seed1" / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match=r"one/seed1: .*; run it again, or take it out"):
        Study(tmp_path / "study", plan_of())


def test_a_curve_of_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    plan = plan_of(table("one", curve="objective.roh"))
    study = study_of(tmp_path, {"one": (0.5,)}, plan)
    (study.runs["one"][0].directory / "config.yaml").write_text("objective: {rho: 1}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: has no objective\.roh; mend the plan"):
        write_page(plan, study, tmp_path / "results.md")
