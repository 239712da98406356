from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from proassist_lit.errors import ConfigError
from proassist_lit.report.runs import multirun_table, runs_table
from proassist_lit.report.scoreboard import KEY_METRICS
from proassist_lit.report.tables import UNFINISHED, Table

MAIN_METRICS = tuple(f"test/{name}" for name in KEY_METRICS)


def job(sweep: Path, name: str, config: str, metrics: str | dict | None) -> None:
    folder = sweep / name
    folder.mkdir(parents=True)
    if config:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
    if metrics is not None:
        text = metrics if isinstance(metrics, str) else json.dumps(metrics)
        (folder / "metrics.json").write_text(text, encoding="utf-8")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    result = dict.fromkeys(MAIN_METRICS, 0.5)
    for k, rho in ((10, 1.0), (2, 0.1)):
        job(
            tmp_path / "sweep",
            str(k),
            f"seed: 0\nspeak_loss: {{rho: {rho}, focal: null}}\nlist: [1, 2]\n",
            {**result, "test/utterance_f1": rho / 2, "test/similarity_model": "x|y", "val/x": 1},
        )
    return tmp_path / "sweep"


def row(table: Table, name: str) -> dict[str, object]:
    return next(dict(zip(table.columns, r, strict=True)) for r in table.rows if r[0] == name)


@pytest.fixture
def untested(tmp_path: Path) -> Path:
    """A multirun on data without a test; its last job is still at work."""
    for seed, f1 in (("1", 0.25), ("2", 0.75)):
        metrics = dict.fromkeys(MAIN_METRICS, 0.5) | {"test/utterance_f1": f1}
        metrics = {key.replace("test/", "val/"): value for key, value in metrics.items()}
        job(tmp_path / "untested", seed, f"seed: {seed}\n", metrics)
    job(tmp_path / "untested", "3", "seed: 3\n", None)
    return tmp_path / "untested"


def test_how_a_job_was_started_is_no_setting_that_differs(tmp_path: Path) -> None:
    job(tmp_path, "0", "seed: 1\nresume: auto\n", None)
    job(tmp_path, "1", "seed: 2\nresume: null\n", None)
    assert multirun_table(tmp_path).columns[:3] == ("job", "status", "seed")
    assert "resume" not in multirun_table(tmp_path).columns


def test_jobs_without_a_test_are_compared_on_val(untested: Path) -> None:
    table = multirun_table(untested)
    assert table.metric_columns == tuple(f"val/{name}" for name in KEY_METRICS)
    assert table.columns == ("job", "status", "seed", *table.metric_columns)
    assert row(table, "2")["val/utterance_f1"] == 0.75
    assert row(table, "2")["val/speak_f1"] == 0.5
    assert row(table, "3")["status"] == UNFINISHED


def test_runs_without_a_test_are_ordered_by_val(untested: Path) -> None:
    table = runs_table(untested)
    assert table.metric_columns == tuple(f"val/{name}" for name in KEY_METRICS)
    assert [r[0] for r in table.rows] == ["2", "1", "3"]


def test_jobs_are_compared_on_test_where_any_has_one(untested: Path) -> None:
    job(untested, "4", "seed: 4\n", dict.fromkeys(MAIN_METRICS, 0.5))
    assert multirun_table(untested).metric_columns == MAIN_METRICS
    assert runs_table(untested).rows[0][0] == "4"


def test_columns_are_what_differs_and_main_metrics(sweep: Path) -> None:
    table = multirun_table(sweep)
    assert table.columns == ("job", "status", "speak_loss.rho", *MAIN_METRICS)
    assert [r[0] for r in table.rows] == ["2", "10"]
    assert row(table, "10")["speak_loss.rho"] == "1.0"
    assert row(table, "10")["test/utterance_f1"] == 0.5
    assert row(table, "10")["status"] == "done"


@pytest.mark.parametrize("metrics", [None, "", '{"test/utterance_f1": 0.', "[1]", "\x00"])
@pytest.mark.parametrize("config", ["seed: 1\n", "", "a: [", "- 1\n", "a: !!python/none x\n"])
def test_broken_jobs_are_listed_not_fatal(sweep: Path, config: str, metrics: str | None) -> None:
    job(sweep, "3", config, metrics)
    (sweep / "3" / ".hydra").mkdir()
    table = multirun_table(sweep)
    assert [r[0] for r in table.rows] == ["2", "3", "10"]
    assert row(table, "3")["status"] == UNFINISHED
    assert row(table, "3")["test/utterance_f1"] is None
    assert UNFINISHED in table.to_markdown()


def test_metrics_that_are_not_numbers_are_empty(sweep: Path) -> None:
    job(sweep, "3", "seed: 1\n", {"test/utterance_f1": "n/a", "test/speak_f1": None})
    assert row(multirun_table(sweep), "3")["test/utterance_f1"] is None


def test_a_key_that_only_some_jobs_have_differs(sweep: Path) -> None:
    job(sweep, "3", "seed: 0\nextra: {}\n", None)
    table = multirun_table(sweep)
    assert row(table, "3")["extra"] == "{}"
    assert row(table, "2")["extra"] is None
    assert "list" in table.columns


def test_folders_that_are_no_jobs_are_left_out(sweep: Path) -> None:
    (sweep / "plots").mkdir()
    (sweep / "multirun.yaml").write_text("a: 1", encoding="utf-8")
    assert len(multirun_table(sweep).rows) == 2


def test_an_empty_sweep_is_an_empty_table(tmp_path: Path) -> None:
    table = multirun_table(tmp_path)
    assert table.rows == ()
    assert table.to_csv() == ",".join(table.columns) + "\n"


def test_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere' is not a directory; give the directory"):
        multirun_table(tmp_path / "nowhere")


def test_csv_reads_back(sweep: Path) -> None:
    multirun_table(sweep).write(sweep / "table.csv")
    rows = list(csv.DictReader(io.StringIO((sweep / "table.csv").read_text(encoding="utf-8"))))
    assert [float(r["test/utterance_f1"]) for r in rows] == [0.05, 0.5]
    assert not list(sweep.glob(".table*"))


def test_markdown_marks_the_best_and_escapes(sweep: Path) -> None:
    table = Table(
        title="t", columns=("job", "m"), metric_columns=("m",), rows=(("a|b\nc", 0.25), ("d", 0.5))
    )
    table.write(sweep / "table.md")
    assert (sweep / "table.md").read_text(encoding="utf-8").splitlines() == [
        "| job | m |",
        "| --- | ---: |",
        "| a\\|b c | 0.2500 |",
        "| d | **0.5000** |",
    ]


def test_html_escapes(tmp_path: Path) -> None:
    table = Table(title="<b>", columns=("<i>",), metric_columns=(), rows=(("<script>",),))
    table.write(tmp_path / "table.html")
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    table = Table(title="t", columns=(), metric_columns=(), rows=())
    with pytest.raises(ConfigError, match=r"'t\.xls' ends in '\.xls'; name a file.*\.csv, \.md"):
        table.write(tmp_path / "t.xls")


def test_terminal_shows_every_job_and_reads_no_markup(sweep: Path) -> None:
    job(sweep, "[red]odd", "seed: 0\n", None)
    console = Console(file=io.StringIO(), width=200)
    console.print(multirun_table(sweep))
    text = console.file.getvalue()
    assert "[red]odd" in text
    assert UNFINISHED in text
    assert "0.0500" in text


def test_runs_at_any_depth_are_ordered_by_the_metric(sweep: Path) -> None:
    root = sweep.parent
    job(root, "other/late", "seed: 7\nresume: auto\n", {"test/utterance_f1": 0.9, "val/x": 3})
    job(root, "other/late/evaluations/e1", "seed: 7\n", {"test/utterance_f1": 0.01})
    job(root, "other/late/streams/no", "seed: 7\n", {"test/utterance_f1": 1.0})
    job(root, "other/broken", "seed: 7\n", None)
    (root / "latest").symlink_to(root / "other/late")

    table = runs_table(root)

    assert [r[0] for r in table.rows] == [
        "other/late", "sweep/10", "sweep/2", "other/late/evaluations/e1", "other/broken"
    ]  # fmt: skip
    assert table.columns[:2] == ("run", "status")
    assert "seed" in table.columns
    assert "resume" not in table.columns
    assert table.rows[-1][1] == UNFINISHED


def test_runs_are_ordered_downwards_where_lower_is_better(sweep: Path) -> None:
    for name, loss in (("2", 3.0), ("10", 0.5)):
        path = sweep / name / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"val/loss": loss}))
    table = runs_table(sweep, sort="val/loss", metrics=["val/loss"])
    assert [r[0] for r in table.rows] == ["10", "2"]
    assert "| **0.5000** |" in table.to_markdown()


def test_runs_without_a_number_come_last(tmp_path: Path) -> None:
    for name, loss in (("a", 3.0), ("b", math.nan), ("c", 1.0), ("d", 2.0)):
        job(tmp_path, name, "seed: 1\n", {"val/loss": loss})
    rows = runs_table(tmp_path, sort="val/loss", metrics=["val/loss"]).rows
    assert [row[0] for row in rows] == ["c", "d", "a", "b"]


def test_runs_without_a_run_or_the_metric_are_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        runs_table(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is no directory"):
        runs_table(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"--sort utterance_f1.*test/utterance_f1\?"):
        runs_table(sweep, sort="utterance_f1")
    with pytest.raises(ConfigError, match=r"--sort test/utterancef1: .*is 'test/utterance_f1'\.$"):
        runs_table(sweep, sort="test/utterancef1")


def test_runs_show_settings_that_do_not_differ_where_asked(sweep: Path) -> None:
    table = runs_table(sweep, keys=["speak_loss.focal", "seed"])
    assert table.columns[2:5] == ("speak_loss.focal", "seed", "speak_loss.rho")
    assert [r[3] for r in table.rows] == ["0", "0"]


def test_runs_refuse_keys_and_metrics_that_no_run_has(sweep: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        runs_table(sweep, metrics=["test/foo", "val/x"], keys=["seeed", "seed"])
    assert str(caught.value).splitlines() == [
        "--metrics test/foo: no run has such a metric; the nearest is 'test/speak_f1'.",
        "--keys seeed: no run has such a setting; the nearest is 'seed'.",
    ]
