from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.job_result import JobResult, Pruned
from proassist_lit.lit import callbacks
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.pruning import Pruning
from proassist_lit.lit.run import train
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.sweep.job import run_once
from proassist_lit.sweep.trial import VARIABLE, Trial
from tests.lit.test_run import config


@dataclass
class FakeTrial:
    """Ends at a step."""

    ends_at: int
    prune_by: str = "val/loss"
    reports: list[tuple[float, int]] = field(default_factory=list)

    def report(self, value: float, step: int) -> bool:
        self.reports.append((value, step))
        return step >= self.ends_at


def validate(pruning: Pruning, step: int, **changed: Any) -> Any:
    """What a Trainer looks like after a validation."""
    trainer = SimpleNamespace(
        sanity_checking=False, state=SimpleNamespace(fn="fit"), is_global_zero=True,
        callback_metrics={"val/loss": 2.0}, global_step=step, should_stop=False,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )  # fmt: skip
    vars(trainer).update(changed)
    pruning.on_validation_end(cast(Any, trainer), cast(Any, SimpleNamespace(num_steps=8)))
    return trainer


def callback(trial: FakeTrial, **latest: float) -> Pruning:
    return Pruning(cast(Any, trial), cast(Any, SimpleNamespace(latest=latest)))


def test_pruning_reports_each_validation_and_stops_when_told() -> None:
    trial = FakeTrial(ends_at=4)
    pruning = callback(trial)
    assert not validate(pruning, 2).should_stop
    assert not pruning.pruned
    assert validate(pruning, 4).should_stop
    assert pruning.pruned
    assert trial.reports == [(2.0, 2), (2.0, 4)]


def test_a_trial_that_is_trained_to_its_end_keeps_its_value() -> None:
    trial = FakeTrial(ends_at=8)
    pruning = callback(trial)
    assert not validate(pruning, 8).should_stop
    assert not pruning.pruned
    assert trial.reports == [(2.0, 8)]


def test_pruning_reports_metrics_of_the_stream() -> None:
    trial = FakeTrial(9, prune_by="val_stream/utterance_f1")
    validate(callback(trial, **{"val_stream/utterance_f1": 0.25}), 2)
    assert trial.reports == [(0.25, 2)]


def test_pruning_is_silent_outside_training() -> None:
    trial = FakeTrial(0)
    validate(callback(trial), 2, sanity_checking=True)
    validate(callback(trial), 2, state=SimpleNamespace(fn="validate"))
    assert trial.reports == []


def test_one_process_asks_and_all_hear_the_answer() -> None:
    trial = FakeTrial(0)
    pruning = callback(trial)
    told = SimpleNamespace(broadcast=lambda value: True)
    assert validate(pruning, 2, is_global_zero=False, strategy=told).should_stop
    assert trial.reports == []
    assert pruning.pruned


def test_a_validation_that_answered_no_stream_reports_none() -> None:
    def after(prune_by: str, step: int) -> FakeTrial:
        trial = FakeTrial(9, prune_by=prune_by)
        validate(Pruning(cast(Any, trial), cast(Any, SimpleNamespace(latest=None))), step)
        return trial

    assert after("val_stream/utterance_f1", 2).reports == []
    assert after("val/loss", 2).reports == [(2.0, 2)]


def test_a_validation_in_which_nothing_is_matched_reports_none() -> None:
    trial = FakeTrial(9, prune_by="val_stream/utterance_rouge_l")
    pruning = callback(trial, **{"val_stream/utterance_f1": 0.0})
    validate(pruning, 2)
    assert trial.reports == []

    never = FakeTrial(9, prune_by="val_stream/dst_update_f1")
    with pytest.raises(ConfigError, match="validation has no such metric"):
        validate(callback(never, **{"val_stream/utterance_f1": 0.0}), 2)


def test_streams_without_words_have_no_metric_of_words_to_wait_for() -> None:
    never = FakeTrial(9, prune_by="val_stream/utterance_f1")
    with pytest.raises(ConfigError, match=r"the nearest is 'val_stream/speak_f1'"):
        validate(callback(never, **{"val_stream/speak_f1": 0.5}), 2)


def test_a_validation_that_answers_no_stream_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = EvaluationResult(config=StreamConfig(), transcripts={"val": []})
    evaluator = SimpleNamespace(quick=lambda _model, _num: found)
    evaluation = StreamingEvaluation(
        cast(Any, evaluator), cast(Any, None), [cast(Any, None)], EvaluationConfig()
    )
    monkeypatch.setattr(callbacks, "AssistantModule", SimpleNamespace)
    monkeypatch.setattr(callbacks, "whole", nullcontext)
    trainer = SimpleNamespace(sanity_checking=False, callback_metrics={}, is_global_zero=True)

    evaluation.on_validation_end(cast(Any, trainer), cast(Any, SimpleNamespace(model=None)))

    assert evaluation.latest is None


def test_metric_that_is_not_there_is_named() -> None:
    said = r"prune_by=val/los: validation has no such metric; the nearest is 'val/loss'"
    with pytest.raises(ConfigError, match=said):
        validate(callback(FakeTrial(0, prune_by="val/los"), **{"val_stream/f1": 0.1}), 2)


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")
def test_pruned_run_ends_early_without_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    steps = []

    def report(trial: Trial, value: float, step: int) -> bool:
        assert 0 < value < 100
        steps.append(step)
        return step >= 4

    monkeypatch.setattr(Trial, "report", report)
    trial = Trial(folder="", number=0, prune_by="val/loss", pruner="median", warmup_trials=1,
                  warmup_steps=0)  # fmt: skip
    monkeypatch.setenv(VARIABLE, trial.to_text())
    with pytest.raises(Pruned, match="at step 4"):
        train(config(tmp_path, steps=8), tmp_path / "run")
    assert steps == [2, 4]
    assert not (tmp_path / "run/metrics.json").exists()
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()

    assert run_once(train, config(tmp_path, steps=8), tmp_path / "other") is None
    assert JobResult.read(tmp_path / "other") == JobResult(value=None, pruned=True)
