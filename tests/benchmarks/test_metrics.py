from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from benchmarks import metrics
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.metrics.similarity import HashedWordSimilarity

Printed = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Measures short streams; what is printed."""

    def run(*arguments: str) -> dict[str, Any]:
        lengths = ["--frames", "100,300", "--dense-frames", "200"]
        monkeypatch.setattr(sys, "argv", ["metrics", *lengths, *arguments])
        metrics.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def check(found: dict[str, Any]) -> None:
    assert set(found) == {
        "benchmark", "ratio", "baseline", "ours", "equal_costs", "lengths", "settings", "machine"
    }  # fmt: skip
    assert found["equal_costs"] is True
    assert found["ours"]["frames"] == found["baseline"]["frames"] == 200
    assert [row["frames"] for row in found["lengths"]] == [100, 300]
    for row in found["lengths"]:
        assert row["utterances"] == round(metrics.SHARE * row["frames"]) < row["texts"]
        assert row["matching_s"] > 0
        assert 0 < row["embedding_s"] < row["all_metrics_s"]
        assert 0.5 < row["utterance_f1"] < 1.0
        rounding_us = 100 / row["frames"]
        us_per_frame = 1e6 * row["all_metrics_s"] / row["frames"]
        assert row["us_per_frame"] == pytest.approx(us_per_frame, abs=rounding_us)


def test_metrics_measures_both_sides_and_each_length(printed: Printed) -> None:
    found = printed()

    check(found)
    assert found["settings"] == {"similarity": "words-1024"}


@pytest.mark.road
@pytest.mark.filterwarnings("default")  # sentence-transformers' own imports warn
def test_metrics_are_measured_by_the_similarity_of_runs(printed: Printed) -> None:
    found = printed("--similarity", EvaluationConfig().similarity)

    check(found)
    assert found["settings"] == {"similarity": "all-MiniLM-L6-v2"}


class Clock:
    """Moves by a second whenever it is read, and by a thousand a text that is embedded."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now

    def build_similarity(self, name: str) -> Remembering:
        return Remembering(name, self)


class Remembering(HashedWordSimilarity):
    """Embeds each text once, as MiniLM does."""

    def __init__(self, name: str, clock: Clock) -> None:
        super().__init__()
        self.name, self._clock, self._seen = name, clock, set[str]()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self._clock.now += 1000 * len(set(texts) - self._seen)
        self._seen.update(texts)
        return super().__call__(texts)


def test_embedding_is_told_apart_and_every_evaluation_embeds_anew(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    monkeypatch.setattr(metrics, "build_similarity", clock.build_similarity)
    found = printed("--similarity", "minilm")

    check(found)
    assert found["settings"] == {"similarity": "minilm"}
    for row in found["lengths"]:
        embedded = row["embedding_s"] // 1000
        assert row["texts"] <= embedded <= row["texts"] + 1  # the empty one: no partner
        assert row["all_metrics_s"] // 1000 == embedded
        assert row["matching_s"] < 1000  # of texts that are known
    assert found["baseline"]["matching_s"] < 1000
