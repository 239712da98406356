"""Settings of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.match_windows import MatchWindow


class Matching(StrEnum):
    """By whose rules generated utterances are matched to those of the reference."""

    AUTO = "auto"
    """By the reference's with ``compat=proassist``, else by ours."""

    OURS = "ours"
    REFERENCE = "reference"


@dataclass(kw_only=True)
class EvaluationConfig:
    """Streaming evaluation: on validation, and in full after training."""

    similarity: str = "minilm"
    """Sentence similarity: minilm, words, or a sentence-transformers folder or hub id."""

    streams_on_validation: int = 3
    """Streams of val that are answered at each validation, the first by name; 0 for none. The
    first three of them are drawn."""

    candidates: int = 3
    """Values of each threshold that val is streamed with, in one pass, before one is taken; 1: the
    best one over single frames of a teacher-forced pass is taken. Where the backbone needs a pass
    for each, it is always 1."""

    sweep_speak: list[float] = field(default_factory=list)
    """Further values of theta_speak that val is streamed with; in [0, 1] but where stream.rule
    compares another number than P(speak)."""

    sweep_dst: list[float] = field(default_factory=list)
    """Further values of theta_dst that val is streamed with."""

    forced_words: bool = False
    """Whether the model also writes at every turn of the reference, the reference being its
    context; its words are scored as forced_bleu_4 and so on (ProAssist's offline evaluation)."""

    meteor: bool = False
    """Whether words are scored by METEOR, too; needs Java and the package pycocoevalcap
    (the extra meteor)."""

    matching: Matching = Matching.AUTO
    """auto (as compat says), ours or reference: by whose rules utterances are matched. Runs with
    and without compat are to be compared by the same ones."""

    windows: dict[str, list[float]] = field(default_factory=dict)
    """Match windows by data set, before the built-in ones: seconds from the generated utterance
    to the earliest and to the latest reference that it may answer, say {kitchen: [-1.5, 3]}."""

    report_streams: int = 12
    """Streams of each split that the report shows."""

    def __post_init__(self) -> None:
        faults = [
            f"evaluation.{name} must be >= {least}, got {getattr(self, name)}."
            for name, least in (
                ("streams_on_validation", 0), ("report_streams", 0), ("candidates", 1),
            )
            if getattr(self, name) < least
        ]  # fmt: skip
        if wrong := [theta for theta in self.sweep_speak if not math.isfinite(theta)]:
            faults.append(f"evaluation.sweep_speak: thresholds must be finite, got {wrong}.")
        if wrong := [theta for theta in self.sweep_dst if not 0.0 <= theta <= 1.0]:
            faults.append(f"evaluation.sweep_dst: thresholds must be in [0, 1], got {wrong}.")
        faults += [
            f"evaluation.windows.{dataset} must be two numbers in seconds, the earlier first "
            f"([-1.5, 3]; a large number of seconds for no limit), got {window}."
            for dataset, window in self.windows.items()
            if not _is_window(window)
        ]
        if faults:
            raise ConfigError("\n".join(faults))

    def match_windows(self) -> dict[str, MatchWindow]:
        """``windows`` as the matching wants them."""
        return {dataset: MatchWindow(*bounds) for dataset, bounds in self.windows.items()}


def _is_window(bounds: Sequence[float]) -> bool:
    return len(bounds) == 2 and bounds[0] <= bounds[1] and all(map(math.isfinite, bounds))
