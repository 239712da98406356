"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proassist_lit.streaming.config import StreamConfig
from proassist_lit.types import Transcript


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """Metrics of a split, streamed freely with one pair of thresholds.

    Attributes:
        theta_speak: threshold of P(speak), in [0, 1], or of what ``stream.rule`` makes of it.
        theta_dst: threshold of P(update), in [0, 1].
        metrics: value by name, without the split: ``utterance_f1``.
    """

    theta_speak: float
    theta_dst: float
    metrics: Mapping[str, float]


@dataclass(kw_only=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        config: the stream settings with the thresholds that were used.
        metrics: flat, ``test/utterance_f1``, ``baseline/blind/test/utterance_f1``, thresholds.
        transcripts: answered streams, by split.
        sweep: the thresholds that were tried, by split; in no order.
    """

    config: StreamConfig
    metrics: dict[str, float | str] = field(default_factory=dict)
    transcripts: dict[str, list[Transcript]] = field(default_factory=dict)
    sweep: dict[str, list[SweepPoint]] = field(default_factory=dict)
