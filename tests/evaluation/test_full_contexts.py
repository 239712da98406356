"""Streams that are talked full: a model that is not trained yet, thresholds that nobody takes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import FramesTurn
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.errors import ContextError, StreamError
from proassist_lit.evaluation import baselines
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.thresholds import Candidates
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.engine import Engine
from tests.evaluation.fakes import CONFIG, RandomSet, make_evaluator
from tests.fakes import dialogue, random_features, tiny_model

# Ten frames fit in silence, but not with five words at each of them; four frames do.
NARROW = replace(
    CONFIG, theta_speak=1.0, theta_dst=1.0, strategy=Strategy.NONE, max_context=64, reserve=24
)
TALKATIVE = replace(NARROW, theta_speak=0.0)
SHORT = dialogue((FramesTurn(start=0, end=3),), video_uid="val4")


@pytest.fixture(params=[True, False], ids=["engine", "sessions"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: request.param))


def with_short_stream() -> Evaluator:
    """Its second stream of val is short enough to be talked through."""
    evaluator = make_evaluator(TALKATIVE)
    first, _, third = evaluator._data["val"].conversations
    short = RandomSet("val", (first, SHORT, third), Path(), DataConfig())
    evaluator._data = {**evaluator._data, "val": short}
    return evaluator


def of(*thresholds: tuple[float, ...]) -> staticmethod:
    return staticmethod(lambda *_args, **_kwargs: Candidates(*thresholds))


@pytest.mark.usefixtures("runner")
def test_streams_that_are_full_are_left_out_of_a_validation() -> None:
    evaluator = with_short_stream()

    with pytest.warns(UserWarning, match=r"2 of 3 streams are left out .* 'val3.*context is full"):
        found = evaluator.quick(tiny_model(), 3)

    assert [t.stream_id for t in found.transcripts["val"]] == [SHORT.id]
    alone = with_short_stream()
    alone._data = {"val": RandomSet("val", (SHORT,), Path(), DataConfig())}
    assert found.metrics == alone.quick(tiny_model(), 1).metrics


def test_a_validation_without_a_stream_has_no_metrics() -> None:
    with pytest.warns(UserWarning, match="3 of 3 streams are left out"):
        found = make_evaluator(TALKATIVE).quick(tiny_model(), 3)

    assert (found.metrics, found.transcripts) == ({}, {"val": []})


def test_a_damaged_stream_still_ends_a_validation() -> None:
    class Damaged(RandomSet):
        def features(self, conversation) -> Tensor:
            return random_features(10) * float("nan")

    evaluator = make_evaluator(TALKATIVE)
    conversations = evaluator._data["val"].conversations
    damaged: ConversationSet = Damaged("val", conversations, Path(), DataConfig())
    evaluator._data = {"val": damaged}
    with pytest.raises(StreamError, match="features hold NaN"):
        evaluator.quick(tiny_model(), 1)


@pytest.mark.road
@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("speak", [(0.0, 1.0), (1.0, 0.0)], ids=["first", "other"])
def test_thresholds_that_fill_a_context_are_not_chosen(
    speak: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    monkeypatch.setattr(Candidates, "find", of(speak, (1.0, 0.99)))
    evaluator = make_evaluator(NARROW, EvaluationConfig(candidates=2, sweep_speak=[0.0]))

    with pytest.warns(UserWarning, match=r"[12] of 3 pairs of thresholds are not taken.*is full"):
        found = evaluator.evaluate(model)

    assert (found.config.theta_speak, found.config.theta_dst) == (1.0, 1.0)
    assert 0.0 not in {point.theta_speak for point in found.sweep["val"]}
    monkeypatch.undo()
    alone = make_evaluator(NARROW).evaluate(model)
    assert found.transcripts == alone.transcripts
    assert {k: v for k, v in found.metrics.items() if k != "threshold_choice"} == {
        k: v for k, v in alone.metrics.items() if k != "threshold_choice"
    }


def test_a_pair_that_fills_a_context_gives_way_to_one_that_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each threshold alone fits, both together do not."""
    monkeypatch.setattr(Candidates, "find", of((1.0, 0.0), (1.0, 0.0)))
    monkeypatch.setattr(
        Evaluator,
        "_scores",
        lambda _, transcripts: {
            "utterance_f1": sum(f.speak for t in transcripts for f in t.frames),
            "dst_update_f1": sum(f.dst for t in transcripts for f in t.frames),
        },
    )
    wide = replace(NARROW, max_context=150)  # 98 tokens by one of them, twice that by both
    evaluator = make_evaluator(wide, EvaluationConfig(candidates=2))

    with pytest.warns(UserWarning, match="1 of 4 pairs of thresholds are not taken"):
        found = evaluator.evaluate(tiny_model())

    assert (found.config.theta_speak, found.config.theta_dst) == (0.0, 1.0)


def test_where_all_thresholds_fill_a_context_nothing_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Candidates, "find", of((0.0, 0.1), (1.0,)))
    evaluator = make_evaluator(NARROW, EvaluationConfig(candidates=2))
    with pytest.raises(ContextError, match=r"'val3.*the context is full"):
        evaluator.evaluate(tiny_model())


def test_thresholds_that_were_given_are_not_left_for_others() -> None:
    settings = EvaluationConfig(candidates=1, sweep_speak=[1.0])
    with pytest.raises(ContextError, match=r"'val3.*the context is full"):
        make_evaluator(TALKATIVE, settings).evaluate(tiny_model())


def test_a_baseline_that_fills_its_context_has_no_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, answer = tiny_model(), baselines.Streamer.answer

    def answer_blindly(self, conversations, features, thresholds, **kwargs):
        if getattr(features, "__name__", "") == "zeros":
            thresholds = [replace(thresholds[0], speak=0.0)]
        return answer(self, conversations, features, thresholds, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = make_evaluator(NARROW).evaluate(model).metrics
    monkeypatch.setattr(baselines.Streamer, "answer", answer_blindly)

    with pytest.warns(UserWarning, match="baseline blind_zeros has no metrics"):
        found = make_evaluator(NARROW).evaluate(model).metrics

    assert found == {k: v for k, v in whole.items() if "/blind_zeros/" not in k}
    assert found != whole
