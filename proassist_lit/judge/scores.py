"""Scores of streams: a judge's answers read, averaged and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.prompt import ASPECTS, rate_prompt
from proassist_lit.judge.request import JudgeSettings, Request, repeated
from proassist_lit.judge.usage import Usage
from proassist_lit.judge.verdict import Scores, read_all, read_scores
from proassist_lit.types import Transcript


@dataclass(frozen=True, kw_only=True)
class StreamScores:
    """What a judge says of one stream.

    Attributes:
        stream_id: which one.
        scores: of every answer that could be read.
        unreadable: why the others could not be.
        num_missing: requests without an answer.
    """

    stream_id: str
    scores: tuple[Scores, ...]
    unreadable: tuple[str, ...] = ()
    num_missing: int = 0

    def mean(self, aspect: str) -> float | None:
        """Average over the answers; None without a readable one."""
        return fmean(scores[aspect] for scores in self.scores) if self.scores else None


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """What a judge says of the streams of a split.

    Attributes:
        settings: how it was asked.
        streams: one entry a stream.
        usage: what all its answers took, whenever they were asked.
    """

    settings: JudgeSettings
    streams: tuple[StreamScores, ...]
    usage: Usage

    @property
    def num_judged(self) -> int:
        """Streams with a readable answer at least."""
        return sum(bool(stream.scores) for stream in self.streams)

    @property
    def num_missing(self) -> int:
        """Requests without an answer."""
        return sum(stream.num_missing for stream in self.streams)

    @property
    def unreadable(self) -> Counter[str]:
        """How many answers could not be read, by the reason."""
        return Counter(reason for stream in self.streams for reason in stream.unreadable)

    def mean(self, aspect: str) -> float | None:
        """Average over the judged streams, each counting once; None without any."""
        means = [mean for stream in self.streams if (mean := stream.mean(aspect)) is not None]
        return fmean(means) if means else None

    def metrics(self) -> dict[str, float | str]:
        """Flat values by name, for ``metrics.json``; means are left out where there are none."""
        out: dict[str, float | str] = {
            aspect: mean for aspect in ASPECTS if (mean := self.mean(aspect)) is not None
        }
        out["num_streams"] = self.num_judged
        out["num_unreadable"] = self.unreadable.total()
        out["num_missing"] = self.num_missing
        out["model"] = self.settings.model
        return out

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``judge.json``."""
        return {
            **vars(self.settings),
            **self.metrics(),
            "unreadable": dict(self.unreadable),
            "usage": vars(self.usage),
            "streams": {
                stream.stream_id: {
                    **{aspect: stream.mean(aspect) for aspect in ASPECTS},
                    "answers": [dict(scores) for scores in stream.scores],
                    "unreadable": list(stream.unreadable),
                    "num_missing": stream.num_missing,
                }
                for stream in self.streams
            },
        }


def score_requests(
    transcripts: Sequence[Transcript], settings: JudgeSettings
) -> dict[str, tuple[Request, ...]]:
    """What to ask a judge about each stream, by its name."""
    return {t.stream_id: repeated(t.stream_id, rate_prompt(t), settings) for t in transcripts}


def score_streams(
    requests: Mapping[str, Sequence[Request]], answers: AnswerFile, settings: JudgeSettings
) -> SplitScores:
    """Read the answers that there are."""
    streams = []
    for stream_id, asked in requests.items():
        found = answers.find(asked)
        scores, unreadable = read_all(found, read_scores)
        streams.append(
            StreamScores(
                stream_id=stream_id,
                scores=scores,
                unreadable=unreadable,
                num_missing=len(asked) - len(found),
            )
        )
    usage = answers.usage(request for asked in requests.values() for request in asked)
    return SplitScores(settings=settings, streams=tuple(streams), usage=usage)
