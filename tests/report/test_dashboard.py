from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.evaluation.result import EvaluationResult, SweepPoint
from proassist_lit.metrics.matching import UNSCORED
from proassist_lit.metrics.summary import evaluate_by_dataset, evaluate_transcripts
from proassist_lit.report import from_evaluation
from proassist_lit.report.dashboard import Chart, Dashboard, DataTable, Picture
from proassist_lit.report.dashboard_files import DashboardFiles
from proassist_lit.report.from_evaluation import gather_dashboard, gather_glance
from proassist_lit.report.run_report import picture_type
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import ContextSource, StreamConfig
from proassist_lit.types import Transcript
from tests.report.fakes import cooking_stream
from tests.report.outcomes import MATCHER, stream

CONFIG = StreamConfig(theta_speak=0.5, theta_dst=0.45)


def result(**streams: list[Transcript]) -> EvaluationResult:
    return EvaluationResult(
        config=CONFIG,
        metrics={"test/utterance_f1": 0.5, "baseline/clock/test/utterance_f1": 0.25,
                 "similarity": "words"},
        transcripts=streams,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashboards of named streams; the pictures themselves are drawn by the tests of them."""

    def timeline(transcript: Transcript, *_: object, **thetas: float) -> bytes:
        return f"timeline of {transcript.stream_id} at {thetas}".encode()

    monkeypatch.setattr(from_evaluation, "draw_timeline", timeline)
    monkeypatch.setattr(from_evaluation, "draw_gantt", lambda t: t.stream_id.encode())


def test_utterances_are_listed_with_what_became_of_them() -> None:
    table = gather_dashboard(result(test=[stream()]), MATCHER).tables["utterances"]

    assert table.columns == ("split", "stream", "time_s", "frame", "outcome", "score", "late_s",
                             "reference", "generated")  # fmt: skip
    assert table.rows == (
        ("test", "a", 51.0, 102, "matched", 1.0, 0.5, "wash the pan", "wash the pan"),
        ("test", "a", 54.0, 108, "mismatched", 0.0, 0.0, "peel it", "cut carrots now"),
        ("test", "a", 57.0, 114, "missed", None, None, "well done", ""),
        ("test", "a", 59.0, 118, "redundant", None, None, "", "hello"),
    )


def test_state_updates_are_listed_with_what_became_of_them() -> None:
    table = gather_dashboard(result(test=[stream()]), MATCHER).tables["state_updates"]

    assert table.columns == ("split", "stream", "frame", "outcome", "step", "step_name",
                             "transition", "reference_time_s", "predicted_time_s")  # fmt: skip
    assert table.rows == (
        ("test", "a", 102, "matched", "S1", "wash", "start", 51.0, 51.5),
        ("test", "a", 110, "missed", "S1", "wash", "complete", 55.0, None),
        ("test", "a", 117, "redundant", "S2", "peel", "start", None, 58.5),
    )


def test_nothing_is_missed_in_tables_and_pictures_where_nothing_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(
        from_evaluation, "draw_timeline", lambda _, match, **__: drawn.append(match)
    )
    silent = result(val=[stream()])
    silent.config = replace(CONFIG, context=ContextSource.REFERENCE, words=False)
    for gather in (gather_dashboard, gather_glance):
        assert {"utterances", "state_updates"}.isdisjoint(gather(silent, MATCHER).tables)
    assert drawn == [UNSCORED] * 2


def test_tables_count_what_the_metrics_count() -> None:
    streams = [cooking_stream(seed).transcript for seed in range(4)]
    scores = evaluate_transcripts(streams, MATCHER)
    tables = gather_dashboard(result(val=streams[:1], test=streams[1:]), MATCHER).tables

    outcomes = [row[4] for row in tables["utterances"].rows]
    for outcome in ("matched", "mismatched", "missed", "redundant"):
        assert outcomes.count(outcome) == scores[f"utterance_num_{outcome}"] > 0
    updates = [row[3] for row in tables["state_updates"].rows]
    matched, missed = updates.count("matched"), updates.count("missed")
    assert matched / (matched + missed) == pytest.approx(scores["dst_update_recall"])
    assert matched / (len(updates) - missed) == pytest.approx(scores["dst_update_precision"])


def test_baselines_stand_beside_the_model() -> None:
    table = gather_dashboard(result(test=[stream()]), MATCHER).tables["comparison"]

    assert table.columns == ("metric", "test", "clock")
    assert table.rows == (("utterance_f1", 0.5, 0.25),)


def test_data_sets_have_a_table_where_they_have_metrics() -> None:
    streams = [stream(), replace(stream("b"), dataset="wtag/dialog")]
    whole = result(test=streams)
    assert "data_sets" not in gather_dashboard(whole, MATCHER).tables
    names = ["toy", "wtag/dialog"]
    scores = evaluate_by_dataset(streams, MATCHER, names=names)
    whole.metrics |= {f"test/{name}": value for name, value in scores.items()}

    table = gather_dashboard(whole, MATCHER).tables["data_sets"]

    assert table.columns[:2] == ("split", "data_set")
    assert [row[:2] for row in table.rows] == [("test", name) for name in names]
    for one, row in zip(streams, table.rows, strict=True):
        own = evaluate_transcripts([one], MATCHER)
        assert dict(zip(table.columns[2:], row[2:], strict=True)) == pytest.approx(own)


def test_thresholds_that_were_tried_are_a_table_and_a_chart() -> None:
    whole = result(val=[stream()])
    whole.sweep["val"] = [
        SweepPoint(theta_speak=0.6, theta_dst=0.5, metrics={"utterance_f1": 0.3}),
        SweepPoint(theta_speak=0.4, theta_dst=0.2, metrics={"utterance_f1": 0.5}),
        SweepPoint(theta_speak=0.4, theta_dst=0.5, metrics={"utterance_f1": 0.7, "x": 1.0}),
    ]

    board = gather_dashboard(whole, MATCHER)

    assert board.tables["sweep"] == DataTable(
        columns=("split", "theta_speak", "theta_dst", "utterance_f1", "x"),
        rows=(("val", 0.4, 0.2, 0.5, None), ("val", 0.4, 0.5, 0.7, 1.0),
              ("val", 0.6, 0.5, 0.3, None)),
    )  # fmt: skip
    assert board.charts["val/sweep_theta_speak"].lines == {
        "utterance_f1": ((0.4, 0.7), (0.6, 0.3))  # the better of two values of theta_dst
    }
    assert "val/sweep_theta_dst" not in board.charts  # nothing that depends on it


def test_decisions_have_curves_of_both_heads() -> None:
    charts = gather_dashboard(result(test=[stream()]), MATCHER).charts

    assert set(charts) == {"test/precision_recall", "test/calibration"}
    curve = charts["test/precision_recall"].lines
    assert set(curve) == {"speak", "dst"}
    # At 0.9 it speaks at three frames, one of the reference's three; at 0.1 at all 20.
    assert curve["speak"] == (
        (pytest.approx(1 / 3), pytest.approx(1 / 3)),
        (1.0, pytest.approx(3 / 20)),
    )
    calibration = charts["test/calibration"]
    assert calibration.diagonal
    assert calibration.lines["dst"] == (
        (pytest.approx(0.2), 2 / 18),
        (pytest.approx(0.8), 0.0),
    )


def test_the_same_three_streams_are_drawn_at_every_evaluation() -> None:
    streams = {name: stream(name) for name in "abcde"}
    glance = gather_glance(result(val=[streams[n] for n in "abc"]), MATCHER)
    whole = gather_dashboard(result(val=[streams[n] for n in "edbca"], test=[stream("0")]), MATCHER)

    for board in (glance, whole):
        assert {name: picture.caption for name, picture in board.pictures.items()} == {
            "timelines/1": "a", "steps/1": "a", "timelines/2": "b", "steps/2": "b",
            "timelines/3": "c", "steps/3": "c",
        }  # fmt: skip
    assert glance.pictures == whole.pictures
    assert (
        glance.pictures["timelines/2"].png
        == b"timeline of b at {'theta_speak': 0.5, 'theta_dst': 0.45}"
    )
    assert not glance.tables
    assert whole.is_whole
    assert not glance.is_whole


def test_files_hold_the_dashboard(tmp_path: Path) -> None:
    table = DataTable(columns=("a", "b"), rows=((1, "x, y"), (None, "z")))
    chart = Chart(title="t", x_name="recall", y_name="precision", lines={"speak": ((0.5, 1.0),)})
    board = Dashboard(
        metrics={"test/f1": 0.5, "similarity": "words"},
        tables={"utterances": table},
        charts={"test/precision_recall": chart},
        pictures={"timelines/1": Picture(caption="a", png=b"png")},
        is_whole=True,
    )
    files = DashboardFiles(RunDirectory(tmp_path))

    files.show(replace(board, is_whole=False), step=5)
    assert not (tmp_path / "metrics.json").exists()  # not before all is answered
    files.show(board, step=10)
    files.finish()

    assert json.loads((tmp_path / "metrics.json").read_text()) == board.metrics
    folder = tmp_path / "dashboard"
    with (folder / "utterances.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", "x, y"], ["", "z"]]
    written = (folder / "test" / "precision_recall.csv").read_text()
    assert written == "line,recall,precision\nspeak,0.5,1.0\n"
    assert (folder / "timelines" / "1.png").read_bytes() == b"png"
    assert picture_type((folder / "test" / "precision_recall.png").read_bytes()) == "image/png"


def test_tables_and_pictures_of_an_earlier_evaluation_are_taken_away(tmp_path: Path) -> None:
    table = DataTable(columns=("a",), rows=((1,),))
    board = Dashboard(
        metrics={}, tables={"comparison": table, "sweep": table, "val/sweep": table},
        pictures={f"timelines/{i}": Picture(caption="a", png=b"png") for i in (1, 2)},
        is_whole=True,
    )  # fmt: skip
    files = DashboardFiles(RunDirectory(tmp_path / "run"))
    files.show(board, step=10)
    folder, elsewhere = tmp_path / "run/dashboard", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (elsewhere / "mine.csv", folder / "notes.txt", tmp_path / "run/mine.csv"):
        path.write_text("mine")
    (folder / "link").symlink_to(elsewhere)
    (folder / "link.csv").symlink_to(elsewhere / "mine.csv")

    def left() -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    mine = {"notes.txt", "link.csv"}
    both = {"timelines/1.png", "timelines/2.png"}
    files.show(Dashboard(metrics={}), step=11)
    assert left() == {"comparison.csv", "sweep.csv", "val/sweep.csv", *both, *mine}
    files.show(
        replace(
            board,
            tables={"comparison": table},
            pictures={"timelines/1": Picture(caption="", png=b"")},
        ),
        step=12,
    )
    assert left() == {"comparison.csv", "timelines/1.png", *mine}
    assert (elsewhere / "mine.csv").exists()
    assert (tmp_path / "run/mine.csv").exists()


def test_markdown_of_a_table_keeps_its_cells() -> None:
    table = DataTable(columns=("a", "b"), rows=((1.23456, "x|y\nz"), (None, "")))
    assert table.to_markdown() == "| a | b |\n| --- | --- |\n| 1.235 | x\\|y z |\n|  |  |"
