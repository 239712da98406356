"""An evaluation from thresholds to metrics, on random streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.evaluation.thresholds import Candidates
from proassist_lit.metrics.match_windows import MatchWindow
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.calibrate import threshold_candidates
from proassist_lit.streaming.config import ContextSource, Kernels, SpeakRule
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import DecisionPolicy, Thresholds
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.fakes import tiny_model

OPEN = replace(CONFIG, theta_speak=None, theta_dst=None)


@pytest.fixture(scope="module")
def plain() -> EvaluationResult:
    """Of the evaluation that asks for nothing special."""
    return make_evaluator().evaluate(tiny_model())


@pytest.mark.road
def test_thresholds_are_taken_from_streaming_val_and_used_on_test() -> None:
    model = tiny_model()
    evaluator = make_evaluator(OPEN, EvaluationConfig(candidates=5))

    result = evaluator.evaluate(model)

    points = result.sweep["val"]
    assert len(points) > 3
    assert "test" not in result.sweep
    theta = result.config.theta_speak, result.config.theta_dst
    assert (result.metrics["test/theta_speak"], result.metrics["test/theta_dst"]) == theta
    assert result.metrics["threshold_choice"] == "streamed on val"
    beside = [p for p in points if p.theta_dst == points[0].theta_dst]
    best = max(p.metrics["utterance_f1"] for p in beside)
    assert best in [p.metrics["utterance_f1"] for p in beside if p.theta_speak == theta[0]]
    # what stands in the result is what streaming with these thresholds alone gives
    alone = make_evaluator(replace(OPEN, theta_speak=theta[0], theta_dst=theta[1])).evaluate(model)
    assert alone.transcripts == result.transcripts
    assert alone.sweep == {}
    assert {k: v for k, v in alone.metrics.items() if k != "threshold_choice"} == {
        k: v for k, v in result.metrics.items() if k != "threshold_choice"
    }


@pytest.mark.road
@pytest.mark.parametrize("rule", [SpeakRule.RUNNING_SUM, SpeakRule.Z_SCORE])
def test_thresholds_of_a_rule_are_found_among_what_it_compares(rule: SpeakRule) -> None:
    model, config = tiny_model(), replace(OPEN, rule=rule)
    evaluator = make_evaluator(config, EvaluationConfig(candidates=5))

    result = evaluator.evaluate(model)

    tried = {point.theta_speak for point in result.sweep["val"]}
    assert len(tried) > 2
    assert min(tried) < 0 or max(tried) > 1  # no probabilities
    values, labels = evaluator._forcing.decisions(model, evaluator._data["val"])[0]
    assert tried == set(threshold_candidates(values, labels, 5))
    for split in ("val", "test"):
        for transcript in result.transcripts[split]:
            policy = DecisionPolicy(rule=rule)
            for frame in transcript.frames:
                assert frame.speak == policy.says(frame.speak_prob, result.config.theta_speak)
                policy.note(frame.speak_prob, frame.speak)
    plain = make_evaluator(replace(config, rule=SpeakRule.THRESHOLD, theta_speak=0.5))
    theirs = plain._forcing.decisions(model, plain._data["val"])[0][0]
    if rule is SpeakRule.RUNNING_SUM:  # ten frames a stream; replies at 0, 4 and 7
        first = theirs[:10]
        want = [first[:1], first[1:5].cumsum(0), first[5:8].cumsum(0), first[8:].cumsum(0)]
        torch.testing.assert_close(values[:10], torch.cat(want))


@pytest.mark.road
@pytest.mark.parametrize("crossed", [False, True])
def test_the_pair_that_is_taken_makes_the_result(
    crossed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(self: Candidates, _: object) -> Thresholds:
        return Thresholds(self.speak[-1], self.dst[-1] if crossed else self.dst[0])

    model, settings = tiny_model(), EvaluationConfig(candidates=3)
    monkeypatch.setattr(Candidates, "choose", choose)

    result = make_evaluator(OPEN, settings).evaluate(model)

    points = [(p.theta_speak, p.theta_dst) for p in result.sweep["val"]]
    chosen = result.config.theta_speak, result.config.theta_dst
    assert (chosen in points) != crossed  # a pair that was not tried is streamed with, too
    config = replace(CONFIG, theta_speak=chosen[0], theta_dst=chosen[1])
    alone = make_evaluator(config).evaluate(model)
    assert chosen != points[0]
    assert result.transcripts == alone.transcripts


@pytest.mark.road
def test_every_point_of_a_sweep_is_a_run_of_its_own() -> None:
    model = tiny_model()
    swept = make_evaluator(
        CONFIG, EvaluationConfig(candidates=1, sweep_speak=[0.55, 0.65], sweep_dst=[0.5])
    ).evaluate(model)

    assert (swept.config.theta_speak, swept.config.theta_dst) == (0.6, 0.6)  # as given
    assert swept.metrics["threshold_choice"] == "given, or frames of val"
    points = {(p.theta_speak, p.theta_dst): p.metrics for p in swept.sweep["val"]}
    assert set(points) == {(0.6, 0.6), (0.55, 0.6), (0.65, 0.6), (0.6, 0.5)}
    assert len({p["speak_f1"] for p in points.values()}) > 1
    for (speak, dst), metrics in points.items():
        config = replace(CONFIG, theta_speak=speak, theta_dst=dst)
        alone = make_evaluator(config).evaluate(model).metrics
        assert dict(metrics) == {name: alone[f"val/{name}"] for name in metrics}


@pytest.mark.road
def test_thresholds_of_updates_that_nobody_decides_on_are_not_tried() -> None:
    settings = EvaluationConfig(candidates=1, sweep_dst=[0.3, 0.5])
    swept = make_evaluator(CONFIG, settings).evaluate(tiny_model(dst=False))
    assert not swept.sweep  # it was streamed once


@pytest.mark.road
def test_a_backbone_without_an_engine_is_streamed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    many = make_evaluator(OPEN, EvaluationConfig(candidates=1)).evaluate(model)
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: False))

    once = make_evaluator(OPEN, EvaluationConfig(candidates=5)).evaluate(model)

    assert once.sweep == {}
    assert once.metrics["threshold_choice"] == "given, or frames of val"
    assert once.metrics["test/theta_speak"] == many.metrics["test/theta_speak"]


@pytest.mark.road
def test_a_backbone_without_an_engine_is_streamed_with_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, settings = tiny_model(), EvaluationConfig(candidates=1, sweep_speak=[0.3, 0.5])
    at_once = make_evaluator(CONFIG, settings).evaluate(model)
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: False))

    one_by_one = make_evaluator(CONFIG, replace(settings, candidates=5)).evaluate(model)

    assert [point.theta_speak for point in one_by_one.sweep["val"]] == [0.6, 0.3, 0.5]
    assert one_by_one.sweep == at_once.sweep


def test_data_sets_have_metrics_of_their_own(plain: EvaluationResult) -> None:
    result = make_evaluator(datasets=("toy", "wtag/dialog")).evaluate(tiny_model())

    for name in ("toy", "wtag/dialog"):
        streams = [t for t in result.transcripts["test"] if t.dataset == name]
        scores = evaluate_transcripts(streams, make_evaluator().matcher)
        prefix = f"test/{name.replace('/', ':')}/"
        mine = {k: v for k, v in result.metrics.items() if k.startswith(prefix)}
        assert mine == {f"{prefix}{key}": value for key, value in scores.items()}
    assert not [k for k in plain.metrics if "toy/" in k]


def test_teacher_forced_metrics_stand_beside_the_streamed_ones(plain: EvaluationResult) -> None:
    metrics = plain.metrics
    for split in ("val", "test"):
        assert metrics[f"{split}/forced_num_turns"] == 9
        assert metrics[f"{split}/forced_perplexity"] > 1
        assert 0 <= metrics[f"{split}/forced_fluency"] <= 1


def test_parts_of_a_conversation_are_forced_one_by_one() -> None:
    model, evaluator = tiny_model(), make_evaluator()
    data, whole = evaluator._data["test"], evaluator._forcing
    twice = replace(whole, split=lambda conversation: [conversation, conversation])
    once, doubled = whole.scores(model, data, 0.5), twice.scores(model, data, 0.5)
    assert doubled["forced_num_turns"] == 2 * once["forced_num_turns"]
    (probs, labels), dst = whole.decisions(model, data)
    (more, _), more_dst = twice.decisions(model, data)
    assert len(more) == 2 * len(probs) == 2 * len(labels)
    assert dst is not None
    assert more_dst is not None
    assert len(more_dst[0]) == 2 * len(dst[0])


def test_turns_of_the_reference_are_decided_as_the_stream_decides() -> None:
    asked: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = [
        {"stride": 2, "min_gap_frames": 3, "rise": 0.1}, {"rule": SpeakRule.RUNNING_SUM}
    ]  # fmt: skip
    for rule in rules:
        evaluator = make_evaluator(replace(CONFIG, **rule))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "proassist_lit.evaluation.forced.forced_turns",
                lambda *_, **given: asked.append(given) or [],
            )
            evaluator._forcing.scores(tiny_model(), evaluator._data["test"], 0.5)
    first, last = asked[0], asked[-1]
    assert (first["policy"], first["rise"]) == (DecisionPolicy(3, 2), 0.1)
    assert (last["policy"], last["rise"]) == (DecisionPolicy(rule=SpeakRule.RUNNING_SUM), None)


def test_words_at_the_turns_of_the_reference_are_scored_where_asked_for() -> None:
    model = tiny_model()
    forcing = replace(make_evaluator()._forcing, max_new_tokens=6)
    data = make_evaluator()._data["test"]
    scores = forcing.scores(model, data, 0.5)
    assert {"forced_bleu_4", "forced_rouge_l", "forced_cider"} <= set(scores)
    plain = make_evaluator()._forcing.scores(model, data, 0.5)
    assert {k: v for k, v in scores.items() if k in plain} == plain


def test_those_words_are_computed_by_the_configured_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Kernels] = []

    def noting(model: AssistantModel, kernels: Kernels = Kernels.AUTO) -> Decoder:
        made.append(kernels)
        return make_decoder(model, kernels)

    monkeypatch.setattr("proassist_lit.evaluation.forced.make_decoder", noting)
    evaluator = make_evaluator(replace(CONFIG, kernels=Kernels.TORCH))
    forcing = replace(evaluator._forcing, max_new_tokens=6)
    forcing.scores(tiny_model(), evaluator._data["test"], 0.5)
    assert made == [Kernels.TORCH]


def test_windows_of_the_configuration_reach_the_matching(plain: EvaluationResult) -> None:
    settings = EvaluationConfig(similarity="words", candidates=1, windows={"toy": [-99, 99]})
    matcher = RunConfig(evaluation=settings).matcher(HashedWordSimilarity())
    assert matcher.windows == {"toy": MatchWindow(-99, 99)}
    wide = make_evaluator(settings=settings, matcher=matcher).evaluate(tiny_model()).metrics
    assert wide["val/utterance_num_redundant"] < plain.metrics["val/utterance_num_redundant"]


@pytest.mark.parametrize("window", [[-math.inf, 2], [-1, math.inf], [math.nan, 2]])
def test_windows_without_a_limit_are_refused(window: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"windows\.tea must be two .*; a large number of sec"):
        EvaluationConfig(windows={"tea": window})


def test_faults_of_the_settings_are_told_together() -> None:
    with pytest.raises(ConfigError) as fault:
        EvaluationConfig(
            candidates=0, sweep_dst=[0.5, 2.0], windows={"kitchen": [3, -1], "garage": [1]}
        )
    lines = str(fault.value).splitlines()
    assert len(lines) == 4
    assert "candidates must be >= 1, got 0" in lines[0]
    assert "sweep_dst: thresholds must be in [0, 1], got [2.0]" in lines[1]
    assert "windows.kitchen must be two numbers" in lines[2]


class NoSimilarity(HashedWordSimilarity):
    """Nothing was written that could be compared."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        raise AssertionError


def test_without_words_decisions_alone_are_scored() -> None:
    silent = replace(OPEN, context=ContextSource.REFERENCE, words=False)
    matcher = Matcher(NoSimilarity(), EvaluationConfig().match_windows())
    evaluator = make_evaluator(
        silent, EvaluationConfig(candidates=5), datasets=("toy", "other"), matcher=matcher
    )
    result = evaluator.evaluate(tiny_model())

    assert result.sweep == {}  # decisions are known before anything is streamed
    assert result.metrics["threshold_choice"] == "given, or frames of val"
    own = {k.rpartition("/")[2] for k in result.metrics if "forced" not in k}
    assert {"speak_f1", "dst_f1", "speak_ap"} <= own
    assert [
        k for k in own if k.startswith(("utterance", "content", "dst_update", "dst_joint"))
    ] == []
    for prefix in ("test", "test/toy", "baseline/clock/test", "baseline/blind/test"):
        assert f"{prefix}/speak_f1" in result.metrics
    assert "val_stream/utterance_f1" not in evaluator.quick(tiny_model(), 2).metrics
    swept = make_evaluator(silent, EvaluationConfig(candidates=1, sweep_speak=[0.01, 0.5]))
    result = swept.evaluate(tiny_model())
    scores = {p.theta_speak: p.metrics["speak_f1"] for p in result.sweep["val"]}
    assert len(scores) == 3
    assert scores[result.config.theta_speak] == max(scores.values())
