"""The report of a run, written anew from what is on the disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from proassist_lit.commands.main import main
from proassist_lit.commands.trained import override
from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config, write_config
from proassist_lit.run_directory import RunDirectory

Captured = pytest.CaptureFixture[str]


def data_of(page: Path) -> dict[str, Any]:
    text = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert text is not None
    return dict(json.loads(text[1]))


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_the_report_of_an_evaluation_written_anew_keeps_the_curves_of_training(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = trained_run.parent / "copy"
    shutil.copytree(trained_run, copy, ignore=shutil.ignore_patterns("evaluations"))
    assert main(["evaluate", str(copy)]) == 0
    (out,) = (copy / "evaluations").iterdir()
    before = data_of(out / "report.html")
    assert {"duration", "checkpoint", "step"} <= dict(before["notes"]).keys()
    monkeypatch.chdir(out)
    assert main(["report", "."]) == 0
    after = data_of(out / "report.html")
    assert after["notes"] == before["notes"]
    assert any("val/loss" in str(curve) for curve in before["curves"])
    assert after["curves"] == before["curves"] == data_of(trained_run / "report.html")["curves"]


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_report_is_written_anew_beside_another_run(trained_run: Path, capsys: Captured) -> None:
    page, other = trained_run.parent / "page.html", trained_run.parent / "other"
    other.mkdir()
    shutil.copy(trained_run / "config.yaml", other)
    found = RunDirectory(trained_run).read_metrics() | {"test/utterance_f1": 0.125}
    (other / "metrics.json").write_text(json.dumps(found))

    def reported(folder: Path, *options: str) -> dict[str, Any]:
        assert main(["report", str(folder), "--out", str(page), *options]) == 0
        assert f"wrote {page}" in capsys.readouterr().out
        return data_of(page)

    data = reported(trained_run, "--against", str(other), "--streams", "1")
    assert sorted(stream["split"] for stream in data["streams"]) == ["test", "val"]
    assert all(stream["film"] for stream in data["streams"])
    assert data["earlier"] == "other"
    (row,) = [row for row in data["headline"] if row["name"] == "utterance_f1"]
    assert row["earlier"] == 0.125
    assert row["change"] == pytest.approx(
        RunDirectory(trained_run).read_metrics()["test/utterance_f1"] - 0.125, abs=1e-6
    )

    every = reported(trained_run)
    assert every["earlier"] is None
    assert sorted(stream["split"] for stream in every["streams"]) == ["test", "test", "val"]
    few = trained_run.parent / "few"
    shutil.copytree(trained_run, few)
    settings = override(
        read_config(RunConfig, few / "config.yaml"), ["evaluation.report_streams=1"]
    )
    write_config(settings, few / "config.yaml")
    assert [s["split"] for s in reported(few)["streams"]] == [s["split"] for s in data["streams"]]

    assert main(["report", str(trained_run), "--against", str(trained_run.parent)]) == 2
    assert "config.yaml: cannot be read" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_has_no_report(tmp_path: Path, capsys: Captured) -> None:
    write_config(RunConfig(), tmp_path / "config.yaml")
    assert main(["report", str(tmp_path), "--streams", "-1"]) == 2
    assert "--streams -1: must be at least 0; 0 shows none." in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "streams.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "streams.json").write_text("[]")
    assert main(["report", str(tmp_path)]) == 2
    assert "metrics.json: there is none" in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text('{"val/utterance_f1": 0.5}')
    (tmp_path / "other").mkdir()
    write_config(RunConfig(), tmp_path / "other/config.yaml")
    assert main(["report", str(tmp_path), "--against", str(tmp_path / "other")]) == 2
    assert "other: has no metrics.json; evaluate it first" in capsys.readouterr().err
