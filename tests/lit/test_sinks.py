"""What the sinks of Lightning and W&B leave behind, read with the readers of their makers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from proassist_lit.config import LoggerConfig, RunConfig, WandbMode
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.lit import logs as logs_module
from proassist_lit.lit import wandb_sink
from proassist_lit.lit.curves_logger import CurvesLogger
from proassist_lit.lit.logger_sinks import MOST_ROWS, CsvSink
from proassist_lit.lit.logs import Logs, build_logs
from proassist_lit.lit.wandb_run import WandbIdentity, find_identity
from proassist_lit.report.curves import read_curves
from proassist_lit.report.dashboard import Chart, Dashboard, DataTable, Picture
from proassist_lit.report.figure import draw_chart
from proassist_lit.run_directory import RunDirectory
from tests.lit.wandb_command import inspect, offline_runs

LINES = {"speak": ((0.0, 1.0), (1.0, 0.5)), "dst": ((0.5, 0.5),)}
CHART = Chart(title="t", x_name="recall", y_name="precision", lines=LINES)
TABLE = DataTable(
    columns=("time_s", "score", "said"), rows=((1.5, 0.75, "peel it"), (2.0, None, "well | done"))
)
METRICS: dict[str, float | str] = {
    "test/utterance_f1": 0.5,
    "baseline/clock/test/utterance_f1": 0.25,
    "best/val_loss": 1.5,
    "similarity": "words",
}
GLANCE = Dashboard(
    metrics={"val_stream/utterance_f1": 0.75},
    pictures={"timelines/1": Picture(caption="stream-a", png=draw_chart(CHART))},
)
WHOLE = replace(
    GLANCE,
    metrics=METRICS,
    tables={"utterances": TABLE},
    charts={"test/precision_recall": CHART},
    is_whole=True,
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)


def config(*, mode: WandbMode = WandbMode.OFFLINE, tensorboard: bool = False) -> RunConfig:
    return RunConfig(name="small", logger=LoggerConfig(wandb=mode, tensorboard=tensorboard))


def show_all(logs: Logs) -> None:
    for sink in logs.sinks:
        sink.show(GLANCE, 10)
        sink.show(replace(GLANCE, metrics={"val_stream/utterance_f1": 0.5}), 20)
        sink.show(WHOLE, 30)


@pytest.mark.road
def test_wandb_run_holds_keys_tables_and_pictures(tmp_path: Path) -> None:
    logs = build_logs(config(), RunDirectory(tmp_path), None)
    show_all(logs)
    logs.loggers[-1].log_metrics({"val/loss": 3.0}, step=10)
    logs.loggers[-1].log_metrics({"val/loss": 4.0}, step=20)
    logs.finish(failed=False)

    (run,) = offline_runs(tmp_path)
    found = inspect(run)
    summary = found["summary"]
    assert found["exit_code"] == 0
    assert found["run_id"] == logs.identity.run_id
    assert found["config"]["objective"]["kind"] == "per_turn"
    assert summary["test/utterance_f1"] == 0.5
    assert summary["baseline/clock/test/utterance_f1"] == 0.25
    assert summary["best/val_loss"] == 1.5
    assert summary["similarity"] == "words"
    assert summary["val_stream/utterance_f1"] == {"max": 0.75, "last": 0.5}
    assert summary["val/loss"] == {"min": 3.0, "last": 4.0}
    assert summary["trainer/global_step"] == 20

    table = json.loads((run / "files" / summary["tables/utterances"]["path"]).read_text())
    assert table["columns"] == list(TABLE.columns)
    assert table["data"] == [list(row) for row in TABLE.rows]
    curve = json.loads(
        (run / "files" / summary["charts/test/precision_recall_table"]["path"]).read_text()
    )
    assert curve["data"] == [[0.0, "speak", 1.0], [1.0, "speak", 0.5], [0.5, "dst", 0.5]]
    assert summary["timelines/1"]["caption"] == "stream-a, step 30"
    pictures = list((run / "files" / "media" / "images" / "timelines").glob("*.png"))
    assert len(pictures) == 3  # one an evaluation
    assert all(picture.stat().st_size < 60_000 for picture in pictures)
    assert not list(run.rglob("*.ckpt"))
    assert not list(run.rglob("*.py"))
    assert list((tmp_path / "wandb" / "artifacts").rglob("tmp*"))  # not in the home directory
    assert "WANDB_DATA_DIR" not in os.environ


def test_wandb_charts_are_not_of_baselines(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []

    class Run:
        summary: dict[str, Any] = {}  # noqa: RUF012
        log = staticmethod(rows.append)

    sink = wandb_sink.WandbSink(Run(), tmp_path)
    sink.show(Dashboard(metrics=METRICS, is_whole=True), 30)

    assert rows == [{"trainer/global_step": 30, "test/utterance_f1": 0.5}]
    assert set(Run.summary) == {"baseline/clock/test/utterance_f1", "best/val_loss", "similarity"}


def test_wandb_tables_are_bounded_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sink, "MOST_ROWS", 1)
    rows: list[dict[str, Any]] = []

    class Run:
        summary: dict[str, Any] = {}  # noqa: RUF012
        log = staticmethod(rows.append)

    wandb_sink.WandbSink(Run(), tmp_path).show(replace(WHOLE, charts={}, pictures={}), 30)

    assert len(rows[0]["tables/utterances"].data) == 1
    assert Run.summary["tables/utterances_rows_left_out"] == 1


@pytest.mark.road
def test_two_jobs_in_one_process_are_two_wandb_runs(tmp_path: Path) -> None:
    ids = []
    for name, failed in (("first", False), ("second", True)):
        logs = build_logs(config(), RunDirectory(tmp_path / name), None)
        logs.loggers[-1].log_metrics({"train/loss": float(failed)}, step=1)
        assert wandb.run is None  # nothing that the next job would take for its own
        logs.finish(failed=failed)
        ids.append(logs.identity.run_id)

    found = [inspect(run) for name in ("first", "second") for run in offline_runs(tmp_path / name)]
    assert [one["run_id"] for one in found] == ids
    assert ids[0] != ids[1]
    assert [one["summary"]["train/loss"]["last"] for one in found] == [0.0, 1.0]
    assert [one["exit_code"] for one in found] == [0, 1]


@pytest.mark.road
def test_wandb_run_goes_on_after_the_rows_that_it_has(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    checkpoint = run.last_checkpoint
    checkpoint.parent.mkdir()
    first = build_logs(config(), run, None)
    for step in range(3):
        first.loggers[-1].log_metrics({"train/loss": 1.0}, step=step)
    state = {"WandbIdentity": first.identity.state_dict()}
    torch.save({"global_step": 3, "callbacks": state}, checkpoint)
    first.finish(failed=True)

    second = build_logs(config(), run, str(checkpoint))
    second.loggers[-1].log_metrics({"train/loss": 0.5}, step=3)
    second.finish(failed=False)

    found = [inspect(part) for part in offline_runs(tmp_path)]
    assert [one["run_id"] for one in found] == [first.identity.run_id] * 2
    assert [one["step"] for one in found] == [2, 3]


def test_identity_is_that_of_the_checkpoint_else_of_the_directory_else_new(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    without, holding, broken = (run.checkpoints / f"{n}.ckpt" for n in ("none", "own", "broken"))
    other = RunDirectory(tmp_path / "branch")
    torch.save({"callbacks": {}}, without)
    torch.save({"callbacks": {"WandbIdentity": WandbIdentity("kept", 7).state_dict()}}, holding)
    broken.write_bytes(b"not a checkpoint")

    assert find_identity(run, str(without)).run_id not in ("", "of-directory")
    run.wandb_id.write_text("of-directory\n")
    kept = find_identity(run, str(holding))
    assert (kept.run_id, kept.step) == ("kept", 7)
    assert find_identity(run, str(without)).run_id == "of-directory"
    with pytest.raises(CheckpointError, match=r"broken\.ckpt: cannot be read as a checkpoint"):
        find_identity(run, str(broken))
    new = [find_identity(run, None).run_id for _ in range(2)]
    branches = [find_identity(other, str(holding)) for _ in range(2)]  # of a sweep, say
    assert len({*new, *(b.run_id for b in branches), "of-directory", "kept"}) == 6


def test_a_checkpoint_that_cannot_be_read_costs_no_curves(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    run.last_checkpoint.write_bytes(b"cut off")
    curves = "step,train/loss\n0,3.0\n1,2.0\n"
    (tmp_path / "metrics.csv").write_text(curves)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be read as a checkpoint"):
        build_logs(config(), run, str(run.last_checkpoint))
    assert (tmp_path / "metrics.csv").read_text() == curves


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_wandb_that_does_not_start_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []

    def refuse(*, mode: str, **_: object) -> None:
        modes.append(mode)
        raise RuntimeError("no server")

    monkeypatch.setattr(wandb, "init", refuse)
    with (
        pytest.warns(UserWarning, match="mode online: no server; the run is kept offline"),
        pytest.warns(UserWarning, match="mode offline: no server; training goes on without it"),
    ):
        logs = build_logs(config(mode=WandbMode.ONLINE), RunDirectory(tmp_path), None)
    show_all(logs)
    logs.finish(failed=False)

    assert modes == ["online", "offline"]
    assert [type(logger) for logger in logs.loggers] == [CurvesLogger]
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.road
def test_wandb_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    logs = build_logs(config(), RunDirectory(tmp_path), None)
    logs.identity.started.finish()

    with pytest.warns(UserWarning, match="W&B did not take what was logged: .*finished"):
        logs.loggers[-1].log_metrics({"train/loss": 1.0}, step=1)
    with pytest.warns(UserWarning, match="W&B did not take what was logged: .*finished"):
        logs.sinks[-1].show(GLANCE, 1)
    logs.finish(failed=False)


@pytest.mark.parametrize("by", ["config", "environment"])
def test_wandb_can_be_disabled(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    mode = WandbMode.DISABLED if by == "config" else WandbMode.OFFLINE
    logs = build_logs(config(mode=mode), RunDirectory(tmp_path), None)

    assert [type(logger) for logger in logs.loggers] == [CurvesLogger]
    assert not (tmp_path / "wandb").exists()


def test_tensorboard_holds_numbers_pictures_and_tables(tmp_path: Path) -> None:
    logs = build_logs(
        config(mode=WandbMode.DISABLED, tensorboard=True), RunDirectory(tmp_path), None
    )
    long = DataTable(columns=("n",), rows=tuple((i,) for i in range(MOST_ROWS + 1)))
    for sink in logs.sinks:
        sink.show(GLANCE, 10)
        sink.show(replace(WHOLE, tables={**WHOLE.tables, "long": long}), 30)
    logs.finish(failed=False)

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    scalars = {tag: events.Scalars(tag)[0] for tag in events.Tags()["scalars"]}
    assert {tag: (e.step, e.value) for tag, e in scalars.items()} == {
        "val_stream/utterance_f1": (10, 0.75),
        "test/utterance_f1": (30, 0.5),
        "baseline/clock/test/utterance_f1": (30, 0.25),
        "best/val_loss": (30, 1.5),
    }
    timelines = events.Images("timelines/1")
    assert [event.step for event in timelines] == [10, 30]
    assert timelines[0].encoded_image_string.startswith(b"\x89PNG")
    assert events.Images("charts/test/precision_recall")
    texts = {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[0].tensor_proto.string_val[0]
        for tag in events.Tags()["tensors"]
    }
    assert texts["similarity"] == b"words"
    assert texts["tables/utterances"].decode() == TABLE.to_markdown()
    assert texts["tables/long"].count(b"\n| ") == 1 + MOST_ROWS  # the rule below the names
    assert texts["tables/long"].endswith(b"500 of 501 rows; all are in dashboard/long.csv")


def test_tensorboard_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tensorboard=true needs .*; pip install tensorboard"):
        build_logs(config(tensorboard=True), RunDirectory(tmp_path), None)


def test_csv_holds_the_numbers(tmp_path: Path) -> None:
    sink = CsvSink(CSVLogger(save_dir=tmp_path, name="", version=""))
    sink.show(GLANCE, 10)
    sink.show(WHOLE, 30)
    sink.finish()

    curves = read_curves(tmp_path / "metrics.csv")
    assert curves["val_stream/utterance_f1"] == [(10, 0.75)]
    assert curves["baseline/clock/test/utterance_f1"] == [(30, 0.25)]
    assert "similarity" not in curves
