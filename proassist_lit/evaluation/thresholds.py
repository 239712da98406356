"""Which thresholds are tried on val, and which of them is taken; test is never looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.streaming.calibrate import FALLBACK, threshold_candidates
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.policy import Thresholds

Labelled = tuple[Tensor, Tensor]
"""(N,) probabilities of one head, or what a rule makes of them, and (N,) labels: 1 yes, 0 no, -1
left out."""


@dataclass(frozen=True)
class Candidates:
    """Thresholds of both decisions to try, the one that single frames call for first.

    Attributes:
        speak: of P(speak), or of what ``stream.rule`` makes of it.
        dst: of P(update).
        rise: see ``StreamConfig.rise``.
        speak_given: whether the first of ``speak`` is taken whatever the others lead to.
        dst_given: likewise.
    """

    speak: tuple[float, ...]
    dst: tuple[float, ...]
    rise: float | None = None
    speak_given: bool = False
    dst_given: bool = False

    @classmethod
    def find(
        cls,
        config: StreamConfig,
        speak: Labelled | None,
        dst: Labelled | None,
        num: int,
        *,
        also_speak: Sequence[float] = (),
        also_dst: Sequence[float] = (),
    ) -> Candidates:
        """Candidates from a teacher-forced pass over val.

        Args:
            config: a threshold that is set there is taken; that of P(speak) means nothing where
                ``rise`` decides.
            speak: probabilities and labels of the speak head; may be None if its threshold is set.
            dst: of the dst head; None without one.
            num: candidates of each decision; 1 for the best over single frames alone.
            also_speak: further thresholds to stream with.
            also_dst: likewise.
        """
        fires_by_rise = config.rise is not None
        return cls(
            _tried(config.theta_speak, speak, 1 if fires_by_rise else num, also_speak),
            _tried(config.theta_dst, dst, num, also_dst),
            config.rise,
            speak_given=config.theta_speak is not None,
            dst_given=config.theta_dst is not None,
        )

    @property
    def streaming_decides(self) -> bool:
        """Whether it depends on what ``rows`` lead to which thresholds are taken."""
        return (len(self.speak) > 1 and not self.speak_given) or (
            len(self.dst) > 1 and not self.dst_given
        )

    def rows(self) -> list[Thresholds]:
        """Pairs to stream with: one decision varies while the other keeps its first threshold."""
        return [
            Thresholds(self.speak[0], self.dst[0], self.rise),
            *(Thresholds(theta, self.dst[0], self.rise) for theta in self.speak[1:]),
            *(Thresholds(self.speak[0], theta, self.rise) for theta in self.dst[1:]),
        ]

    def choose(self, points: Sequence[SweepPoint]) -> Thresholds:
        """The pair to take, each threshold by the metric of its own decision.

        Args:
            points: what ``rows`` led to on val, without those that led nowhere. Of equals the
                first row wins: what single frames call for.
        """
        speak, dst = self.speak[0], self.dst[0]
        by_speak = [point for point in points if point.theta_dst == dst]
        by_dst = [point for point in points if point.theta_speak == speak]
        if not self.speak_given and by_speak:
            speak = max(by_speak, key=lambda p: worth(p.metrics, "speak")).theta_speak
        if not self.dst_given and by_dst:
            dst = max(by_dst, key=lambda p: worth(p.metrics, "dst")).theta_dst
        return Thresholds(speak, dst, self.rise)


_WORDS = {"speak": "utterance_f1", "dst": "dst_update_f1"}


def worth(metrics: Mapping[str, float], head: str) -> float:
    """What ``speak`` or ``dst`` is chosen by: F1 of what was written, else of the decisions."""
    return metrics.get(_WORDS[head], metrics.get(f"{head}_f1", 0.0))


def _tried(
    given: float | None, found: Labelled | None, num: int, also: Sequence[float]
) -> tuple[float, ...]:
    if given is not None:
        first = [given]
    else:
        first = [FALLBACK] if found is None else threshold_candidates(*found, num)
    return tuple(dict.fromkeys([*first, *also]))
