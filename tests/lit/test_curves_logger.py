"""Curves go on where training does."""

from __future__ import annotations

from pathlib import Path

import pytest

from proassist_lit.lit.curves_logger import CurvesLogger, was_logged_before

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def test_rows_of_steps_that_come_again_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,train/loss,val/loss,val_stream/f1\n0,3.0,,\n1,2.0,,\n1,,2.5,\n2,,,0.4\n2,1.5,,\n"
        "3,1.0,,\n3,,0.9,\nnonsense"
    )
    logger = CurvesLogger(tmp_path, step=2)
    logger.log_metrics({"train/loss": 1.25, "train/new": 7.0}, step=2)
    logger.save()
    assert path.read_text().splitlines() == [
        "step,train/loss,train/new,val/loss,val_stream/f1",
        "0,3.0,,,", "1,2.0,,,", "1,,,2.5,", "2,,,,0.4", "2,1.25,7.0,,",
    ]  # fmt: skip


def test_curves_of_another_training_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,3.0\n")
    logger = CurvesLogger(tmp_path, step=None)
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.save()
    assert "1.0" in (tmp_path / "metrics.csv").read_text()
    assert (tmp_path / "metrics.part1.csv").read_text() == "step,train/loss\n0,3.0\n"


def test_a_row_without_a_step_was_cut_off() -> None:
    assert not was_logged_before({"step": None, "train/loss": "1"}, 5)
    assert not was_logged_before({}, 5)
