"""A trained run, evaluated again and reported anew, as from a shell."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.commands.trained import find_checkpoint, override
from proassist_lit.config import Compat, RunConfig
from proassist_lit.config_schema import read_config, write_config
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.lit.run import train
from proassist_lit.metrics.matching import MatchConfig, UtteranceMatch, match_utterances
from proassist_lit.model.checkpoint import load_weights
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import Strategy
from tests.evaluation.test_answers import answered_frames
from tests.fakes import tiny_model
from tests.lit.test_run import config

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run, trained once for all."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        small = config(folder)  # with two streams of test
        small.data.toy = ToyConfig(num_train=1, num_val=1, num_test=2)
        write_config(small, folder / "run/config.yaml")
        train(small, folder / "run")
        yield folder / "run"


def metrics(folder: Path) -> dict[str, float | str]:
    read: dict[str, float | str] = json.loads((folder / "metrics.json").read_text())
    return read


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning and W&B: not tested here
def test_a_run_evaluated_again_comes_out_as_it_did(run: Path, capsys: Captured) -> None:
    out = run.parent / "again"
    assert main(["evaluate", str(run), "--out", str(out)]) == 0

    trained = {k: v for k, v in metrics(run).items() if not k.startswith("best/")}
    assert metrics(out) == trained
    notes = json.loads((out / "notes.json").read_text())
    steps = read_config(RunConfig, run / "config.yaml").trainer.max_steps
    assert (notes["checkpoint"], notes["step"]) == ("checkpoints/last.ckpt", str(steps))
    assert (out / "dashboard/utterances.csv").exists()
    streams = sorted(path.name for path in run.glob("streams/*.json"))
    assert streams == sorted(path.name for path in out.glob("streams/*.json"))
    for name in streams:
        assert (out / "streams" / name).read_text() == (run / "streams" / name).read_text()
    assert "<html" in (out / "report.html").read_text()
    shown = capsys.readouterr().out
    assert f"Report: {out / 'report.html'}" in shown
    assert re.search(r"utterance F1 +\d\.\d{3} +\d\.\d{3}", shown)
    assert not (run / "answers").exists()


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_evaluations_of_the_latest_run_lie_apart_and_with_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "latest"
    stream = Evaluator.evaluate

    def evaluate(*args: Any, **kwargs: Any) -> EvaluationResult:
        RunDirectory(tmp_path / "later").point_latest(tmp_path)  # a training begins
        return stream(*args, **kwargs)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    for theta in (0.25, 0.75):
        RunDirectory(run).point_latest(tmp_path)
        setting = f"stream.theta_speak={theta}"
        assert main(["evaluate", str(latest), setting, "stream.theta_dst=0.5"]) == 0

    assert list((tmp_path / "later").iterdir()) == []
    for name, theta in (("now", 0.25), ("now_2", 0.75)):
        found = run / "evaluations" / name
        assert metrics(found)["val/theta_speak"] == theta
        assert read_config(RunConfig, found / "config.yaml").stream.theta_speak == theta
        assert (found / "report.html").is_file()
    shutil.rmtree(run / "evaluations")


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_answers_are_kept_until_the_report_is_written_and_those_of_others_longer(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    others = run / "answers/of_another.json"
    others.parent.mkdir()
    others.touch()
    command = ["evaluate", str(run), "--out", str(run.parent / "stopped")]
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
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = run.parent / "elsewhere"
    (run / "answers").touch()  # in the way of the folder, as a read-only disk would be
    command = ["evaluate", str(run), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("proassist_lit.report.html.write_report", stop)
        assert main(command) == 130
    names = answered_frames(monkeypatch)
    assert main(command) == 0
    (run / "answers").unlink()

    assert names == []  # it went on
    assert not (out / "answers").exists()
    assert metrics(out)["val/theta_speak"] == metrics(run)["val/theta_speak"]


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_another_state_is_not_written_over_the_results_of_the_run(
    run: Path, capsys: Captured
) -> None:
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert main(["evaluate", str(run), "--checkpoint", "best", "--out", str(run / ".")]) == 2
    assert "the results there are of its last state; name anoth" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_thresholds_are_swept_and_settings_changed(run: Path, capsys: Captured) -> None:
    sweep = "evaluation.sweep_speak=[0.2,0.8]"
    settings = ["stream.theta_speak=0.5", "stream.strategy=drop_all", sweep]
    before = metrics(run)
    assert main(["evaluate", str(run / "checkpoints/best.ckpt"), *settings]) == 0

    (out,) = (run / "evaluations").iterdir()
    assert metrics(run) == before  # what the run found stays
    assert "strategy: drop_all" in (out / "config.yaml").read_text()
    rows = json.loads((out / "sweep.json").read_text())
    assert {0.2, 0.5, 0.8} == {row["theta_speak"] for row in rows}
    assert metrics(out)["test/theta_speak"] == 0.5
    assert "thresholds streamed with on val" in capsys.readouterr().out


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_features_of_another_width_are_told_of(run: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(run), "data.encoder=thumbnail4"]) == 2
    assert re.search(
        r"train\.jsonl:1: features are 48 wide, but the model was trained with \d+; evaluate it on",
        capsys.readouterr().err,
    )


def data_of(page: Path) -> dict[str, Any]:
    text = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert text is not None
    return dict(json.loads(text[1]))


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_the_report_of_an_evaluation_written_anew_keeps_the_curves_of_training(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = run.parent / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluations"))
    assert main(["evaluate", str(copy)]) == 0
    (out,) = (copy / "evaluations").iterdir()
    before = data_of(out / "report.html")
    monkeypatch.chdir(out)
    assert main(["report", "."]) == 0
    after = data_of(out / "report.html")
    assert any("val/loss" in str(curve) for curve in before["curves"])
    assert after["curves"] == before["curves"] == data_of(run / "report.html")["curves"]


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_report_is_written_anew_beside_another_run(run: Path, capsys: Captured) -> None:
    page, other = run.parent / "page.html", run.parent / "other"
    other.mkdir()
    shutil.copy(run / "config.yaml", other)
    found = metrics(run) | {"test/utterance_f1": 0.125}
    (other / "metrics.json").write_text(json.dumps(found))

    def reported(folder: Path, *options: str) -> dict[str, Any]:
        assert main(["report", str(folder), "--out", str(page), *options]) == 0
        assert f"wrote {page}" in capsys.readouterr().out
        return data_of(page)

    data = reported(run, "--against", str(other), "--streams", "1")
    assert sorted(stream["split"] for stream in data["streams"]) == ["test", "val"]
    assert all(stream["film"] for stream in data["streams"])
    assert data["earlier"] == "other"
    (row,) = [row for row in data["headline"] if row["name"] == "utterance_f1"]
    assert row["earlier"] == 0.125
    assert row["change"] == pytest.approx(metrics(run)["test/utterance_f1"] - 0.125, abs=1e-6)

    every = reported(run)
    assert every["earlier"] is None
    assert sorted(stream["split"] for stream in every["streams"]) == ["test", "test", "val"]
    few = run.parent / "few"
    shutil.copytree(run, few)
    settings = override(
        read_config(RunConfig, few / "config.yaml"), ["evaluation.report_streams=1"]
    )
    write_config(settings, few / "config.yaml")
    assert [s["split"] for s in reported(few)["streams"]] == [s["split"] for s in data["streams"]]

    assert main(["report", str(run), "--against", str(run.parent)]) == 2
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


def test_a_checkpoint_is_found_by_its_run_or_itself(tmp_path: Path) -> None:
    write_config(RunConfig(), tmp_path / "run/config.yaml")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: there is no such checkpoint"):
        find_checkpoint(tmp_path / "run", "last")
    (tmp_path / "run/checkpoints").mkdir()
    best = tmp_path / "run/checkpoints/best.ckpt"
    best.touch()
    assert find_checkpoint(tmp_path / "run", "best") == (tmp_path / "run", best)
    assert find_checkpoint(best, "last") == (tmp_path / "run", best)
    with pytest.raises(CheckpointError, match="is no directory of a run"):
        find_checkpoint(tmp_path / "elsewhere", "last")


def test_settings_are_checked_like_those_of_training() -> None:
    changed = override(RunConfig(), ["stream.theta_speak=0.25", "evaluation.sweep_dst=[0.5]"])
    assert changed.stream.theta_speak == 0.25
    assert changed.evaluation.sweep_dst == [0.5]
    assert override(RunConfig(), ["data.test_files="]).data.test_files == ""
    assert override(RunConfig(), ["data.test_files=a="]).data.test_files == "a="
    with pytest.raises(ConfigError, match=r"no key 'theta_speek'.*stream\.theta_speak"):
        override(RunConfig(), ["stream.theta_speek=0.25"])
    with pytest.raises(ConfigError, match=r"theta_speak must be in \[0, 1\]"):
        override(RunConfig(), ["stream.theta_speak=2"])
    with pytest.raises(ConfigError, match=r"'best' is no KEY=VALUE"):
        override(RunConfig(), ["best"])


def test_weights_of_another_model_are_listed(tmp_path: Path) -> None:
    model = tiny_model()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {name: tensor + 1 for name, tensor in state.items()}}, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, path)
    assert all(torch.equal(t, before[name] + 1) for name, t in model.state_dict().items())

    names = list(state)
    gone, cut = names[0], names[1]
    del state[gone]
    state[cut] = state[cut][:1]
    torch.save({"state_dict": state | {"model.extra.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError) as fault:
        load_weights(model, path)
    for part in (
        f"1 missing: {gone.removeprefix('model.')}",
        "1 left over: extra.weight",
        f"1 of another shape: {cut.removeprefix('model.')}: (1, ",
    ):
        assert part in str(fault.value)
    assert all(torch.equal(t, before[name] + 1) for name, t in model.state_dict().items())


@pytest.mark.parametrize("kind", ["missing", "left over", "of another shape"])
def test_one_wrong_tensor_is_enough(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    name = next(iter(state))
    if kind == "missing":
        del state[name]
    elif kind == "left over":
        state["model.extra"] = state[name]
    else:
        state[name] = state[name][:1]
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=f"1 {kind}: "):
        load_weights(model, tmp_path / "w.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"nonsense"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.ckpt: cannot be read as a checkpoint"):
        load_weights(tiny_model(), path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("owned",)

    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=r"w\.ckpt: cannot be read.*UnpicklingError"):
        load_weights(tiny_model(), tmp_path / "w.ckpt")


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
