from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proassist_lit.data.config import DataConfig
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import MatchConfig
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.report.from_run import decisions_by_split, gather_report
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import ContextSource, SpeakRule, StreamConfig
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.types import FrameOutput, Reference, Transcript
from tests.evaluation.fakes import CONFIG
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.report.outcomes import stream


def test_decisions_are_exact_at_the_thresholds_of_the_run() -> None:
    n, theta_speak, theta_dst = 4001, 0.40321, 0.70654
    probs = [i / (n - 1) for i in range(n)]
    transcript = Transcript(
        stream_id="s",
        dataset="toy",
        fps=2.0,
        steps=(),
        frames=tuple(
            FrameOutput(frame_idx=i, time_s=i / 2, speak_prob=p, dst_prob=p, speak=False, dst=False)
            for i, p in enumerate(probs)
        ),
        references=tuple(Reference(speak_label=i % 2, dst_label=i % 2) for i in range(n)),
    )
    config = StreamConfig(theta_speak=theta_speak, theta_dst=theta_dst)
    curves = decisions_by_split({"test": [transcript], "val": []}, config)
    assert curves["val"] == {}
    for other in ({"rule": SpeakRule.RUNNING_SUM}, {"rise": 0.1}):  # no threshold of P(speak)
        found = decisions_by_split({"test": [transcript]}, replace(config, **other))["test"]
        assert found["dst"] == curves["test"]["dst"]
        assert len(found["speak"].thresholds) == len(curves["test"]["speak"].thresholds) - 1
    for head, theta in (("speak", theta_speak), ("dst", theta_dst)):
        known = curves["test"][head].thresholds
        assert len(known) < n
        assert min(p for p in probs if p >= theta) in known


def test_streams_of_one_name_are_shown_with_the_pictures_of_their_data_sets(tmp_path: Path) -> None:
    made = [replace(dialogue(), dataset=name, names_dataset=True) for name in ("tea", "soup")]
    made[1] = replace(made[1], metadata={"rendered": True})
    data = {"val": ConversationSet("val", tuple(made), tmp_path, DataConfig())}
    transcripts = [
        stream_conversation(tiny_model(), word_chat(), one, random_features(10), CONFIG)
        for one in made
    ]
    result = EvaluationResult(config=CONFIG, metrics={}, transcripts={"val": transcripts})
    report = gather_report(
        "name", RunDirectory(tmp_path), result, data, Matcher(HashedWordSimilarity()),
        config_yaml="", notes={}, max_streams=2,
    )  # fmt: skip
    assert [(s.transcript.stream_id, s.rendered) for s in report.streams] == [
        ("tea/video_0_user", False), ("soup/video_0_user", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "compares"),
    [({}, True), ({"rule": SpeakRule.RUNNING_SUM}, False), ({"rise": 0.1}, False)],
)
def test_a_threshold_that_decides_nothing_is_not_shown(
    changed: dict[str, Any], compares: bool, tmp_path: Path
) -> None:
    config = replace(CONFIG, **changed)
    result = EvaluationResult(config=config, metrics={}, transcripts={"val": [stream()]})
    report = gather_report(
        "name", RunDirectory(tmp_path), result, {}, Matcher(HashedWordSimilarity()),
        config_yaml="", notes={}, max_streams=1,
    )  # fmt: skip
    assert report.compares_probs is compares
    assert (report.streams[0].theta_speak is not None) is compares


def test_streams_are_shown_with_the_threshold_that_their_pairs_were_scored_by(
    tmp_path: Path,
) -> None:
    matcher = Matcher(HashedWordSimilarity(), config=MatchConfig(semantic_threshold=0.75))
    result = EvaluationResult(config=CONFIG, metrics={}, transcripts={"val": [stream()]})
    report = gather_report(
        "name", RunDirectory(tmp_path), result, {}, matcher,
        config_yaml="", notes={}, max_streams=1,
    )  # fmt: skip
    assert [view.semantic_threshold for view in report.streams] == [0.75]


def test_nothing_is_missed_in_streams_without_words(tmp_path: Path) -> None:
    config = replace(CONFIG, context=ContextSource.REFERENCE, words=False)
    one = dialogue()
    transcript = stream_conversation(tiny_model(), word_chat(), one, random_features(10), config)
    data = {"val": ConversationSet("val", (one,), tmp_path, DataConfig())}
    for settings, misses in ((config, False), (CONFIG, True)):
        result = EvaluationResult(config=settings, metrics={}, transcripts={"val": [transcript]})
        report = gather_report(
            "name", RunDirectory(tmp_path), result, data, Matcher(HashedWordSimilarity()),
            config_yaml="", notes={}, max_streams=1,
        )  # fmt: skip
        (view,) = report.streams
        assert report.has_words is misses
        assert bool(view.missed or view.redundant or view.matched) is misses
