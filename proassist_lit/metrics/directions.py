"""Which way each metric is better: what reports, tables, the study and searches go by."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from proassist_lit.types import KINDS


class Direction(Enum):
    """Which of two values is the better one."""

    HIGHER = auto()
    LOWER = auto()
    NEAR_ZERO = auto()
    """The smaller one, whatever its sign."""

    NEITHER = auto()
    """A count, of which more is neither better nor worse."""


_WORDS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor")
_DECISIONS = ("precision", "recall", "f1", "balanced_accuracy", "ap", "auroc")

_NAMES: Mapping[Direction, tuple[str, ...]] = {
    Direction.HIGHER: (
        *(f"{head}_{name}" for head in ("speak", "dst") for name in _DECISIONS),
        "utterance_precision",
        "utterance_recall",
        "utterance_f1",
        "utterance_jaccard",
        "utterance_semantic_score",
        "content_accuracy",
        *(f"{kind}_{name}" for kind in KINDS for name in ("precision", "recall", "f1")),
        *(f"{prefix}_{name}" for prefix in ("utterance", "forced") for name in _WORDS),
        "dst_update_precision",
        "dst_update_recall",
        "dst_update_f1",
        "dst_step_accuracy",
        "dst_transition_accuracy",
        "dst_joint_goal_accuracy",
        "forced_correctness",
        "forced_fluency",
        # of a judge
        "correctness",
        "promptness",
        "efficiency",
        "overall",
    ),
    Direction.LOWER: (
        "speak_ece",
        "dst_ece",
        "utterance_missing_rate",
        "utterance_redundant_rate",
        "dst_invalid",
        "forced_perplexity",
        "forced_time_difference_s",
        # of training
        "loss",
        "loss_response",
        "loss_speak",
        "loss_relevance",
        "loss_dst_response",
        "loss_dst",
    ),
    Direction.NEAR_ZERO: ("utterance_time_difference_s",),
    Direction.NEITHER: (
        *(f"{head}_num_{what}" for head in ("speak", "dst") for what in ("frames", "positive")),
        "utterance_num_matched",
        "utterance_num_mismatched",
        "utterance_num_missed",
        "utterance_num_redundant",
        "utterance_num_empty",
        *(f"utterance_num_{kind}" for kind in KINDS),
        "forced_num_turns",
        # of a judge
        "num_streams",
        "num_unreadable",
        "num_missing",
    ),
}

DIRECTIONS: Mapping[str, Direction] = {
    name: direction for direction, names in _NAMES.items() for name in names
}
"""By name of a metric, as ``metrics.json`` and ``metrics.csv`` end their keys."""


def direction(key: str) -> Direction:
    """Which way a metric is better.

    Args:
        key: its name, or a key that ends with it: ``test/toy/utterance_f1``.

    Returns:
        Its direction; of a metric that ``DIRECTIONS`` does not know, ``NEITHER``.
    """
    return DIRECTIONS.get(key.rpartition("/")[2], Direction.NEITHER)


def lower_is_better(key: str) -> bool:
    """Whether the least value of a metric is its best; ``key`` as for ``direction``."""
    return direction(key) in (Direction.LOWER, Direction.NEAR_ZERO)
