"""The presets for looking for faults, under both experiments."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from lightning.pytorch.profilers import PyTorchProfiler, SimpleProfiler

from proassist_lit.composition import compose
from proassist_lit.data.dataset import load_data
from proassist_lit.lit.profiling import build_profiler
from proassist_lit.lit.quiet import quiet_libraries
from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import ProfilerKind
from tests.app import REPO_CONF, App
from tests.data.captaincook4d_files import files, write
from tests.lit.resuming import config, curves, fit
from tests.lit.test_experiments import run_small

PRESETS = ("fdr", "limit", "overfit", "profile")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("experiment", ["per_turn", "per_token", "proassist_8b_i1"])
def test_preset_goes_before_the_experiment(preset: str, experiment: str) -> None:
    chosen = [f"+experiment={experiment}", f"+debug={preset}", "data.root=x"]
    config = compose(chosen, conf_dir=REPO_CONF)
    trainer = config.trainer
    assert config.name == f"debug_{preset}"
    assert config.objective.kind == ("per_turn" if experiment == "per_turn" else "per_token")
    assert (0 < trainer.max_steps <= 200, trainer.max_epochs) == (True, -1)
    assert (trainer.profiler is ProfilerKind.SIMPLE) == (preset == "profile")
    assert (trainer.val_every_steps == 0) == (preset == "overfit")
    few = config.data.max_train and config.data.max_val and config.data.max_test
    assert few or config.data.share == 0.05


@pytest.mark.parametrize("experiment", ["per_turn", "captaincook4d_tiny"])
def test_one_conversation_is_learnt_by_heart(experiment: str, tmp_path: Path) -> None:
    root = write(tmp_path / "annotations", files())
    chosen = [f"+experiment={experiment}", "+debug=overfit", f"data.cache={tmp_path / 'data'}"]
    data = compose([*chosen, f"data.root={root}"], conf_dir=REPO_CONF).data

    assert len(load_data(data)["train"]) == 1


def test_preset_that_an_experiment_would_take_back_is_refused(app: App) -> None:
    assert app("+debug=fdr", "+experiment=per_turn") == 2
    assert app.said() == (
        "error: +debug=fdr: stands before +experiment=per_turn, whose settings would replace its "
        "own; write +experiment=per_turn +debug=fdr"
    )
    assert app.jobs == []


def test_help_shows_the_presets(app: App) -> None:
    assert app("--help") == 0
    listed = app.out.partition("(+debug=NAME, after the experiment):")[2].partition("Config")[0]
    assert re.findall(r"^  (\w+) +[A-Z]", listed, re.MULTILINE) == list(PRESETS)
    assert "\n  debug " not in app.out  # among the groups that are chosen without a plus
    assert re.search(r"fdr +A few steps of everything", listed)


def test_profilers_write_into_the_run_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert build_profiler(ProfilerKind.NONE, run) is None
    for kind, made in (
        (ProfilerKind.SIMPLE, SimpleProfiler),
        (ProfilerKind.TORCH, PyTorchProfiler),
    ):
        profiler = build_profiler(kind, run)
        assert isinstance(profiler, made)
        assert (profiler.dirpath, profiler.filename) == (tmp_path, "profile")


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_the_profiler_of_operators_leaves_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    settings = config(tmp_path / "data", steps=6, profiler=ProfilerKind.TORCH, save_every=0)
    fit(settings, tmp_path / "run")

    (trace, *_) = (tmp_path / "run").glob("*.json")
    events = json.loads(trace.read_text())["traceEvents"]
    assert any("aten::" in event.get("name", "") for event in events)
    assert "aten::" in (tmp_path / "run/fit-profile.txt").read_text()


@pytest.mark.parametrize("name", ["trainer.connectors.checkpoint_connector", "accelerators.cuda"])
def test_libraries_say_nothing_of_themselves(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logger = logging.getLogger(f"lightning.pytorch.{name}")
    before = logger.level
    try:
        quiet_libraries()
        logger.info("`weights_only` was not set, or LOCAL_RANK: 0 - CUDA_VISIBLE_DEVICES: [0].")
    finally:
        logger.setLevel(before)
    assert caplog.records == []


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize(
    ("experiment", "preset"),
    [("per_turn", "fdr"), ("per_token", "fdr"), ("per_turn", "overfit"), ("per_token", "limit"),
     ("per_turn", "profile")],
)  # fmt: skip
def test_preset_runs_to_the_report(
    experiment: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val_every = {"overfit": 0, "limit": 50}.get(preset, 2)
    kept = (f"trainer.val_every_steps={val_every}", "trainer.max_steps=4")[: 1 + (preset == "fdr")]

    metrics = run_small(
        tmp_path, monkeypatch, f"+experiment={experiment}", f"+debug={preset}", *kept
    )

    run = tmp_path / "run"
    assert "test/utterance_f1" in metrics
    assert (run / "report.html").exists()
    assert (run / "fit-profile.txt").exists() == (preset == "profile")
    # "limit" ends long before its first validation is due
    assert (run / "checkpoints/best.ckpt").exists() == (preset != "overfit")
    assert any("val/loss" in row for row in curves(run)) == (preset != "overfit")
    steps = [row["step"] for row in curves(run) if "train/loss" in row]
    assert steps == [str(i) for i in range(4 if preset == "fdr" else 2)]
