"""Every number of a set of streams at once, under flat keys: what ``metrics.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from proassist_lit.metrics.dst import DstMetrics
from proassist_lit.metrics.kinds import UtteranceKindMetrics
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.meteor import Meteor
from proassist_lit.metrics.speaking import FrameDecisionMetrics
from proassist_lit.metrics.text import TextPairMetrics, matched_texts
from proassist_lit.metrics.utterances import UtteranceMetrics
from proassist_lit.types import Transcript


def evaluate_transcripts(
    transcripts: Sequence[Transcript],
    matcher: Matcher,
    *,
    meteor: Meteor | None = None,
    has_words: bool = True,
) -> dict[str, float]:
    """Score streams: frame decisions, utterances, their words, and state tracking.

    Args:
        transcripts: the streams as they were answered.
        matcher: pairs the utterances; the name of its similarity belongs beside the numbers.
        meteor: scores words by METEOR, too; None for not.
        has_words: whether anything was written at all; if not (``stream.words=false``), frame
            decisions alone are scored.

    Returns:
        Value by key, as the classes ``FrameDecisionMetrics``, ``UtteranceMetrics``,
        ``UtteranceKindMetrics``, ``TextPairMetrics`` and ``DstMetrics`` define them. A key that
        means nothing for these streams (no steps, no keywords, nothing matched) is left out.
    """
    values: dict[str, Tensor] = {}
    for head in ("speak", "dst"):
        decisions = FrameDecisionMetrics(head)
        decisions.update(transcripts)
        values |= decisions.compute()
    if has_words:
        values |= _of_words(transcripts, matcher, meteor)
    return {key: float(value) for key, value in values.items()}


def _of_words(
    transcripts: Sequence[Transcript], matcher: Matcher, meteor: Meteor | None
) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    # Matched once; all metrics that need the pairs are handed them.
    matches = matcher.match_all(transcripts)
    utterances = UtteranceMetrics(matcher)
    utterances.update(transcripts, matches)
    values |= utterances.compute()
    if matcher.similarity is not None:
        kinds = UtteranceKindMetrics(matcher.similarity)
        kinds.update(transcripts, matches)
        values |= kinds.compute()
    words = TextPairMetrics("utterance", meteor=meteor)
    words.update(matched_texts(transcripts, matches))
    values |= words.compute()
    state = DstMetrics()
    state.update(transcripts)
    return values | state.compute()


def evaluate_by_dataset(
    transcripts: Sequence[Transcript],
    matcher: Matcher,
    *,
    names: Sequence[str],
    meteor: Meteor | None = None,
    has_words: bool = True,
) -> dict[str, float]:
    """Score streams, all together and, where there are several data sets, each of them.

    Args:
        transcripts: the streams as they were answered.
        matcher: pairs the utterances.
        names: all data sets, also those of which only other processes have streams.
        meteor: scores the words of all streams together by METEOR, too; None for not.
        has_words: as for ``evaluate_transcripts``.

    Returns:
        As ``evaluate_transcripts``; those of a data set under ``<data set>/<metric>``, a slash in
        its name written as a colon.
    """
    values = evaluate_transcripts(transcripts, matcher, meteor=meteor, has_words=has_words)
    for name in names if len(names) > 1 else ():
        streams = [t for t in transcripts if t.dataset == name]
        scores = evaluate_transcripts(streams, matcher, has_words=has_words)
        values |= {f"{dataset_prefix(name)}{key}": value for key, value in scores.items()}
    return values


def dataset_prefix(name: str) -> str:
    """What the metrics of the data set ``name`` begin with; a slash in the name would part keys."""
    return f"{name.replace('/', ':')}/"
