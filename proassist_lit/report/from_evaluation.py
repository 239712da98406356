"""Makes the dashboard of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import UNSCORED, UtteranceMatch
from proassist_lit.report.dashboard import Dashboard, Picture
from proassist_lit.report.evaluation_charts import evaluation_charts
from proassist_lit.report.evaluation_tables import evaluation_tables
from proassist_lit.report.gantt_picture import draw_gantt
from proassist_lit.report.timeline_picture import draw_timeline
from proassist_lit.types import Transcript

PICTURED_SPLIT = "val"

NUM_PICTURED = 3
"""Streams that are drawn at every evaluation: the first of val by name."""


def gather_dashboard(result: EvaluationResult, matcher: Matcher) -> Dashboard:
    """What is shown of a whole evaluation.

    Args:
        result: metrics, transcripts and sweep.
        matcher: pairs the utterances, as it did for the metrics.
    """
    matches = {
        split: _match_all(result, streams, matcher) for split, streams in result.transcripts.items()
    }
    return Dashboard(
        metrics=result.metrics,
        tables=evaluation_tables(result, matches),
        charts=evaluation_charts(result),
        pictures=_pictures(
            result, result.transcripts.get(PICTURED_SPLIT, []), matches.get(PICTURED_SPLIT, [])
        ),
        is_whole=True,
    )


def gather_glance(result: EvaluationResult, matcher: Matcher) -> Dashboard:
    """What is shown while training goes on: metrics and pictures of a few streams of val.

    Args:
        result: metrics as they are to be named, and the streams.
        matcher: pairs the utterances.
    """
    streams = result.transcripts.get(PICTURED_SPLIT, [])
    matches = _match_all(result, streams, matcher)
    return Dashboard(metrics=result.metrics, pictures=_pictures(result, streams, matches))


def _match_all(
    result: EvaluationResult, streams: Sequence[Transcript], matcher: Matcher
) -> list[UtteranceMatch]:
    return matcher.match_all(streams) if result.config.words else [UNSCORED] * len(streams)


def _pictures(
    result: EvaluationResult, streams: Sequence[Transcript], matches: Sequence[UtteranceMatch]
) -> dict[str, Picture]:
    """Timeline and state of the streams that are drawn at every evaluation."""
    theta_speak, theta_dst = result.config.theta_speak_prob, result.config.theta_dst
    assert theta_dst is not None
    pictures = {}
    pairs = sorted(zip(streams, matches, strict=True), key=lambda pair: pair[0].stream_id)
    for number, (transcript, match) in enumerate(pairs[:NUM_PICTURED], start=1):
        name = transcript.stream_id
        timeline = draw_timeline(transcript, match, theta_speak=theta_speak, theta_dst=theta_dst)
        pictures[f"timelines/{number}"] = Picture(caption=name, png=timeline)
        gantt = draw_gantt(transcript)
        if gantt is not None:
            pictures[f"steps/{number}"] = Picture(caption=name, png=gantt)
    return pictures
