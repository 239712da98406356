"""What was trained, found on the disk with the metrics that are its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.commands.trained import find_checkpoint, find_trained, override
from proassist_lit.config import RunConfig
from proassist_lit.config_schema import write_config
from proassist_lit.data.config import DataConfig
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.exchange.fakes import make_run

TINY = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"checkpoint": "checkpoints/last.ckpt"}, False),
        ({"stream": StreamConfig(strategy=Strategy.DROP_ALL)}, False),
        ({"stream": StreamConfig(theta_speak=0.3)}, False),
        ({"trained_since": True}, False),
        ({"broken": "config.yaml"}, True),
        ({"broken": "notes.json"}, True),
    ],
    ids=[
        "of it",
        "of another",
        "streamed otherwise",
        "thresholds given",
        "trained since",
        "one without settings",
        "one without notes",
    ],
)
def test_another_state_has_the_thresholds_of_its_own_evaluation(
    changes: dict[str, Any], known: bool, tmp_path: Path
) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    for day in ("2026-01-01", "2026-01-02"):
        evaluation = RunDirectory(run / "evaluations" / day)
        config = RunConfig(stream=changes.get("stream", StreamConfig()))
        write_config(config, evaluation.path / "config.yaml")
        evaluation.write_notes({"checkpoint": changes.get("checkpoint", "checkpoints/best.ckpt")})
        evaluation.write_metrics({"val/theta_speak": 0.625 if day.endswith("2") else 0.125})
    if "broken" in changes:
        broken = RunDirectory(run / "evaluations/2026-01-03")
        write_config(RunConfig(), broken.path / "config.yaml")
        broken.write_notes({"checkpoint": "checkpoints/best.ckpt"})
        broken.write_metrics({"val/theta_speak": 0.9})
        (broken.path / changes["broken"]).write_text("{")
    if "trained_since" in changes:
        later = time.time() + 60
        os.utime(run / "checkpoints/best.ckpt", (later, later))
    run = run.rename(tmp_path / "moved")

    best = find_trained(run, "best").metrics
    assert best.get("val/theta_speak") == (0.625 if known else None)
    assert find_trained(run).metrics["val/theta_speak"] == 0.25


def test_an_evaluation_that_did_not_come_to_its_end_hides_no_other(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    best = run / "checkpoints/best.ckpt"
    torch.save(torch.load(best, weights_only=True) | {"global_step": 9}, best)
    for day in ("2026-01-01", "2026-01-02"):
        evaluation = RunDirectory(run / "evaluations" / day)
        write_config(RunConfig(), evaluation.path / "config.yaml")
        evaluation.write_notes({"checkpoint": "checkpoints/best.ckpt", "step": "9"})
    RunDirectory(run / "evaluations/2026-01-01").write_metrics({"val/theta_speak": 0.625})

    assert find_trained(run, "best").metrics["val/theta_speak"] == 0.625


@pytest.mark.parametrize("newer", ["checkpoint", "evaluation"])
@pytest.mark.parametrize(("step", "known"), [("9", True), ("5", False)])
def test_whose_an_evaluation_is_says_its_step_and_not_the_time_of_a_copy(
    step: str, known: bool, newer: str, tmp_path: Path
) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    best = run / "checkpoints/best.ckpt"
    torch.save(torch.load(best, weights_only=True) | {"global_step": 9}, best)
    evaluation = RunDirectory(run / "evaluations/2026-01-01")
    write_config(RunConfig(), evaluation.path / "config.yaml")
    evaluation.write_notes({"checkpoint": "checkpoints/best.ckpt", "step": step})
    evaluation.write_metrics({"val/theta_speak": 0.625})
    later = time.time() + 60
    copied_last = best if newer == "checkpoint" else evaluation.path / "metrics.json"
    os.utime(copied_last, (later, later))

    assert find_trained(run, "best").metrics.get("val/theta_speak") == (0.625 if known else None)


@pytest.mark.parametrize(
    "other",
    [
        {"share": 0.1},
        {"max_val": 1},
        {"val_files": "other*.jsonl"},
        {"source": "proassist", "root": "other"},
        {"seed": 2},
        {"toy": ToyConfig(num_val=1)},
        {"dialogue": DialogueConfig(fps=1.0)},
        {"encoder": "thumbnail24"},
        {"num_tokens_per_img": 5},
    ],
    ids=lambda other: next(iter(other)),
)
def test_thresholds_are_not_those_of_an_evaluation_on_another_val(
    other: dict[str, Any], tmp_path: Path
) -> None:
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=TINY))
    own = DataConfig(max_train=1, batch_size=3, cache="moved")  # val is the same
    for day, data in (("2026-01-01", own), ("2026-01-02", DataConfig(**other))):
        evaluation = RunDirectory(run / "evaluations" / day)
        write_config(RunConfig(data=data), evaluation.path / "config.yaml")
        evaluation.write_notes({"checkpoint": "checkpoints/best.ckpt"})
        evaluation.write_metrics({"val/theta_speak": 0.125 if data is own else 0.625})
    assert find_trained(run, "best").metrics["val/theta_speak"] == 0.125


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
