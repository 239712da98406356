"""A trained run, evaluated again, as from a shell."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.config import Compat, RunConfig
from proassist_lit.config_schema import read_config, write_config
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.lit.run import train
from proassist_lit.metrics.matching import MatchConfig, UtteranceMatch, match_utterances
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import Strategy
from tests.evaluation.test_answers import answered_frames
from tests.lit.test_run import config

Captured = pytest.CaptureFixture[str]


def metrics(folder: Path) -> dict[str, float | str]:
    read: dict[str, float | str] = json.loads((folder / "metrics.json").read_text())
    return read


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning and W&B: not tested here
def test_a_run_evaluated_again_comes_out_as_it_did(trained_run: Path, capsys: Captured) -> None:
    out = trained_run.parent / "again"
    assert main(["evaluate", str(trained_run), "--out", str(out)]) == 0

    trained = {k: v for k, v in metrics(trained_run).items() if not k.startswith("best/")}
    assert metrics(out) == trained
    notes = json.loads((out / "notes.json").read_text())
    steps = read_config(RunConfig, trained_run / "config.yaml").trainer.max_steps
    assert (notes["checkpoint"], notes["step"]) == ("checkpoints/last.ckpt", str(steps))
    assert (out / "dashboard/utterances.csv").exists()
    streams = sorted(path.name for path in trained_run.glob("streams/*.json"))
    assert streams == sorted(path.name for path in out.glob("streams/*.json"))
    for name in streams:
        assert (out / "streams" / name).read_text() == (trained_run / "streams" / name).read_text()
    assert "<html" in (out / "report.html").read_text()
    shown = capsys.readouterr().out
    assert f"Report: {out / 'report.html'}" in shown
    assert re.search(r"utterance F1 +\d\.\d{3} +\d\.\d{3}", shown)
    assert not (trained_run / "answers").exists()


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_evaluations_of_the_latest_run_lie_apart_and_with_it(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "latest"
    stream = Evaluator.evaluate

    def evaluate(*args: Any, **kwargs: Any) -> EvaluationResult:
        RunDirectory(tmp_path / "later").point_latest(tmp_path)  # a training begins
        return stream(*args, **kwargs)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    for theta in (0.25, 0.75):
        RunDirectory(trained_run).point_latest(tmp_path)
        setting = f"stream.theta_speak={theta}"
        assert main(["evaluate", str(latest), setting, "stream.theta_dst=0.5"]) == 0

    assert list((tmp_path / "later").iterdir()) == []
    for name, theta in (("now", 0.25), ("now_2", 0.75)):
        found = trained_run / "evaluations" / name
        assert metrics(found)["val/theta_speak"] == theta
        assert read_config(RunConfig, found / "config.yaml").stream.theta_speak == theta
        assert (found / "report.html").is_file()
    shutil.rmtree(trained_run / "evaluations")


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_answers_are_kept_until_the_report_is_written_and_those_of_others_longer(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    others = trained_run / "answers/of_another.json"
    others.parent.mkdir()
    others.touch()
    command = ["evaluate", str(trained_run), "--out", str(trained_run.parent / "stopped")]
    with monkeypatch.context() as patch:
        patch.setattr("proassist_lit.report.html.write_report", stop)
        assert main(command) == 130
    names = answered_frames(monkeypatch)
    assert main(command) == 0

    assert names == []
    assert list(others.parent.iterdir()) == [others]
    shutil.rmtree(others.parent)


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_cannot_be_written_to_is_evaluated_elsewhere(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = trained_run.parent / "elsewhere"
    (trained_run / "answers").touch()  # in the way of the folder, as a read-only disk would be
    command = ["evaluate", str(trained_run), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("proassist_lit.report.html.write_report", stop)
        assert main(command) == 130
    names = answered_frames(monkeypatch)
    assert main(command) == 0
    (trained_run / "answers").unlink()

    assert names == []  # it went on
    assert not (out / "answers").exists()
    assert metrics(out)["val/theta_speak"] == metrics(trained_run)["val/theta_speak"]


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_another_state_is_not_written_over_the_results_of_the_run(
    trained_run: Path, capsys: Captured
) -> None:
    before = {path: path.read_bytes() for path in trained_run.iterdir() if path.is_file()}
    there = ["--out", str(trained_run / ".")]
    assert main(["evaluate", str(trained_run), "--checkpoint", "best", *there]) == 2
    assert "the results there are of its last state; name anoth" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in trained_run.iterdir() if path.is_file()}


@pytest.mark.road
@pytest.mark.parametrize(("step", "stays"), [("4", True), ("2", False)])
def test_an_evaluation_that_stops_leaves_notes_of_training_and_no_results_of_another_state(
    step: str, stays: bool, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "evaluate", stop)
    copy = trained_run.parent / f"copy{step}"
    shutil.copytree(trained_run, copy)
    run = RunDirectory(copy)
    run.write_notes({"command": "python train.py", "step": step})
    found = run.read_metrics()

    assert main(["evaluate", str(copy), "--out", str(copy)]) == 130

    assert run.read_notes()["command"] == "python train.py"
    assert run.read_notes()["step"] == "4"
    assert run.read_metrics() == (found if stays else {})


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_thresholds_are_swept_and_settings_changed(trained_run: Path, capsys: Captured) -> None:
    sweep = "evaluation.sweep_speak=[0.2,0.8]"
    settings = ["stream.theta_speak=0.5", "stream.strategy=drop_all", sweep]
    before = metrics(trained_run)
    assert main(["evaluate", str(trained_run / "checkpoints/best.ckpt"), *settings]) == 0

    (out,) = (trained_run / "evaluations").iterdir()
    assert metrics(trained_run) == before  # what the run found stays
    assert "strategy: drop_all" in (out / "config.yaml").read_text()
    rows = json.loads((out / "sweep.json").read_text())
    assert {0.2, 0.5, 0.8} == {row["theta_speak"] for row in rows}
    assert metrics(out)["test/theta_speak"] == 0.5
    assert "thresholds streamed with on val" in capsys.readouterr().out


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_features_of_another_width_are_told_of(trained_run: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(trained_run), "data.encoder=thumbnail4"]) == 2
    assert re.search(
        r"train\.jsonl:1: features are 48 wide, but the model was trained with \d+; evaluate it on",
        capsys.readouterr().err,
    )


def test_places_that_cannot_be_written_to_are_told_before_the_work(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("proassist_lit.build.build_core", work)
    monkeypatch.setattr("proassist_lit.data.dataset.load_data", work)
    run, file = tmp_path / "run", tmp_path / "file"
    write_config(RunConfig(), run / "config.yaml")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").touch()
    (run / "streams.json").write_text("[]")
    (run / "metrics.json").write_text('{"val/utterance_f1": 0.5}')
    file.touch()
    for command, out in (
        ("evaluate", file), ("evaluate", file / "x"), ("report", file / "x.html"),
        ("report", tmp_path), ("report", Path("/")),
    ):  # fmt: skip
        assert main([command, str(run), "--out", str(out)]) == 2
        assert f"error: --out {out}: cannot be written to (" in capsys.readouterr().err


def test_match_windows_that_are_given_must_be_of_the_data_those_of_the_run_need_not(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: RunConfig, **given: Iterable[str]) -> None:
        raise ConfigError(
            f"{sorted(config.evaluation.windows)}, checked {sorted(given['windows'])}"
        )

    monkeypatch.setattr("proassist_lit.build.build_core", build)
    run = RunConfig(evaluation=EvaluationConfig(windows={"tea": [-1.5, 3.0]}))
    write_config(run, tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    weights = {"model.projector.0.weight": torch.zeros(2, 3)}
    torch.save({"state_dict": weights}, tmp_path / "checkpoints/last.ckpt")
    assert main(["evaluate", str(tmp_path), "evaluation.windows={coffee: [-1, 2]}"]) == 2
    assert "error: ['coffee', 'tea'], checked ['coffee']\n" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "error: ['tea'], checked []\n" in capsys.readouterr().err


def test_settings_may_stand_on_either_side_of_options(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def find(*given: object) -> object:
        raise ConfigError(repr(given))

    monkeypatch.setattr("proassist_lit.commands.evaluate.find_trained", find)
    assert main(["evaluate", "run", "seed=1", "--checkpoint", "best", "name=x", "fps=2"]) == 2
    assert "'best', ['seed=1', 'name=x', 'fps=2'])" in capsys.readouterr().err
    for wrong in ("--nam=x", "word"):
        with pytest.raises(SystemExit):
            main(["evaluate", "run", "--checkpoint", "best", wrong])
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_with_compat_everything_is_matched_as_the_reference_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[MatchConfig | None] = []

    def noted(*args: Any, **settings: Any) -> UtteranceMatch:
        used.append(settings["config"])
        return match_utterances(*args, **settings)

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("proassist_lit.metrics.matcher.match_utterances", noted)
    small = config(tmp_path, steps=2)
    small = replace(
        small,
        compat=Compat.PROASSIST,
        model=replace(small.model, dst=False),
        stream=replace(small.stream, strategy=Strategy.DROP_MIDDLE),
    )
    run = tmp_path / "run"
    write_config(small, run / "config.yaml")
    train(small, run)
    for command in (["evaluate", str(run)], ["report", str(run)]):
        assert main(command) == 0

    released = MatchConfig(compat_abs_cosine=True, compat_drop_zero_cost=True)
    assert [rules for rules in used if rules != released] == []
    assert len(used) > 10
