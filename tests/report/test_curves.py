from __future__ import annotations

import math
from pathlib import Path

import pytest

from proassist_lit.report.curves import read_curves


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_sparse_rows_become_one_curve_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, "epoch,step,train/loss,val/loss\n0,9,2.5,\n0,19,1.5,\n0,19,,1.75\n")
    assert read_curves(path) == {
        "train/loss": [(9, 2.5), (19, 1.5)],
        "val/loss": [(19, 1.75)],
    }


def test_what_lightning_writes_is_read_back(tmp_path: Path) -> None:
    csv_logger = pytest.importorskip("lightning.pytorch.loggers", exc_type=ImportError).CSVLogger
    logger = csv_logger(tmp_path, name=None, version="")
    logger.log_metrics({"train/loss": 2.0, "epoch": 0}, step=3)
    logger.save()
    logger.log_metrics({"val/loss": 1.5}, step=7)  # a new name: the file is written anew
    logger.save()
    assert read_curves(Path(logger.log_dir) / "metrics.csv") == {
        "train/loss": [(3, 2.0)],
        "val/loss": [(7, 1.5)],
    }


def test_missing_and_empty_files_have_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.csv") == {}
    assert read_curves(write(tmp_path, "")) == {}
    assert read_curves(write(tmp_path, "epoch,step,train/loss\n")) == {}


def test_half_written_and_overlong_rows_do_no_harm(tmp_path: Path) -> None:
    path = write(
        tmp_path, "step,a,b\n1,2.0,3.0\n,7.0,\n4,5.0,6.0,9.0,9.0\nx,1,1\nnan,1,1\n5,oops\n"
    )
    assert read_curves(path) == {"a": [(1, 2.0), (4, 5.0)], "b": [(1, 3.0), (4, 6.0)]}


def test_a_resumed_run_overwrites_and_is_sorted(tmp_path: Path) -> None:
    path = write(tmp_path, "step,a\n2,1.0\n3,2.0\n1,0.5\n2,9.0\n")
    assert read_curves(path) == {"a": [(1, 0.5), (2, 9.0), (3, 2.0)]}


def test_divergence_stays_visible(tmp_path: Path) -> None:
    ((step, value),) = read_curves(write(tmp_path, "step,a\n4,nan\n"))["a"]
    assert step == 4
    assert math.isnan(value)
