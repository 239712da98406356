from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from proassist_lit.judge.prompt import ASPECTS
from proassist_lit.judge.request import JudgeSettings
from proassist_lit.judge.scores import SplitScores, StreamScores
from proassist_lit.judge.usage import Usage
from proassist_lit.lit.module import loss_parts
from proassist_lit.loss_terms import LossTerms
from proassist_lit.metrics.directions import DIRECTIONS, Direction, direction, lower_is_better
from proassist_lit.metrics.kinds import UtteranceKindMetrics
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.text import TextPairMetrics
from proassist_lit.model.config import Decision
from proassist_lit.objectives import ObjectiveConfig, weigh
from proassist_lit.types import KINDS, Transcript
from tests.evaluation.fakes import make_evaluator
from tests.fakes import tiny_model


def of_an_evaluation() -> Iterator[str]:
    model, evaluator = tiny_model(), make_evaluator()
    for key, value in evaluator.evaluate(model).metrics.items():
        if not isinstance(value, str) and not key.rpartition("/")[2].startswith("theta_"):
            yield key
    forcing = replace(evaluator._forcing, max_new_tokens=6)
    yield from forcing.scores(model, evaluator._data["test"], 0.5)
    for prefix in ("utterance", "forced"):
        words = TextPairMetrics(prefix, meteor=lambda said, wanted: 0.5)
        words.update([("stir it", "stir it well")])
        yield from words.compute()


def of_kinds(make_transcript: Callable[..., Transcript]) -> Iterator[str]:
    kinds = UtteranceKindMetrics(HashedWordSimilarity())
    stream = make_transcript(3, {}, {1: "stir it"}, kinds={1: KINDS})
    kinds.update([stream], Matcher(HashedWordSimilarity()).match_all([stream]))
    yield from kinds.compute()


def of_training() -> Iterator[str]:
    decision = Decision.INFORMATIVE_RELEVANCE
    terms = LossTerms.of(torch.ones(8), torch.ones(8), decision)
    losses = weigh(terms, decision, ObjectiveConfig())
    yield from loss_parts(losses)


def of_a_judge() -> Iterator[str]:
    stream = StreamScores(stream_id="s", scores=(dict.fromkeys(ASPECTS, 3),))
    scores = SplitScores(settings=JudgeSettings(model="m"), streams=(stream,), usage=Usage())
    for name, value in scores.metrics().items():
        if not isinstance(value, str):
            yield name


def test_every_metric_that_a_run_writes_has_a_direction_and_no_other(
    make_transcript: Callable[..., Transcript],
) -> None:
    keys = [*of_an_evaluation(), *of_kinds(make_transcript), *of_training(), *of_a_judge()]
    assert {key.rpartition("/")[2] for key in keys} == set(DIRECTIONS)


def test_direction_is_that_of_the_name_at_the_end_of_a_key() -> None:
    assert direction("test/toy/utterance_f1") is direction("utterance_f1") is Direction.HIGHER
    assert direction("val/loss") is Direction.LOWER
    assert direction("test/utterance_time_difference_s") is Direction.NEAR_ZERO
    assert direction("test/utterance_num_missed") is direction("odd") is Direction.NEITHER


def test_lower_is_better_of_what_is_lower_or_near_zero() -> None:
    lower = {name for name in DIRECTIONS if lower_is_better(name)}
    assert lower == {
        name for name in DIRECTIONS if DIRECTIONS[name] in (Direction.LOWER, Direction.NEAR_ZERO)
    }
    assert {"loss", "speak_ece", "forced_perplexity", "utterance_time_difference_s"} < lower
    assert not lower_is_better("test/utterance_f1")
    assert not lower_is_better("odd")
