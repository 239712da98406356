"""Was the state of the task followed: scores of the updates and of the state they lead to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.matching import precision_recall_f1
from proassist_lit.types import StepState, Transcript, Update

TOLERANCE_S = 2.0
"""Largest distance of an update from its reference, seconds, inclusive."""

_COUNTS = (
    "num_predicted",
    "num_reference",
    "num_matched",
    "num_step_matched",
    "num_frames",
    "num_state_right",
    "num_invalid",
)


class DstMetrics(Metric):
    """Scores of dialogue state tracking, over the streams that have steps.

    Updates are matched one to one; every update of a frame counts, also one that changed nothing
    or repeats an earlier one. ``compute`` returns, under ``dst_...``:

    - ``update_precision, update_recall, update_f1``: a predicted update is right if it is matched
      with a reference update of the same step and the same transition at most ``tolerance_s``
      away;
    - ``step_accuracy``: was the right step touched at the right time. Updates of the same step,
      whatever their transitions, are matched within the tolerance; matched / (predicted +
      reference - matched), so extra and missing updates both count;
    - ``transition_accuracy``: given the right step, was the transition right. Updates matched in
      step and transition / updates matched in step; 0 where none is;
    - ``joint_goal_accuracy``: share of frames after which the state of every step is right;
    - ``invalid``: number of pieces of dst spans that were unreadable or changed nothing.

    Where the source does not know what is right (``Reference.supervised``) the state is not
    compared, what is invalid is not counted, nor is an update of a step that has no reference near.
    Of that step the state is not compared later either, until the reference updates it again.

    An empty result means that no stream had steps, or that nothing was known of them; without
    ``joint_goal_accuracy`` no frame was supervised. The state are sums, so the numbers are the
    same for any batching and number of ranks.

    Args:
        tolerance_s: largest distance of an update from its reference, seconds, inclusive; >= 0.

    Raises:
        ConfigError: ``tolerance_s`` is negative.

    Source: joint goal accuracy as usual in dialogue state tracking (arXiv:1907.01669). The DST
    extension of the reference pairs updates by their order, so that extra and missing ones are
    free; these are matched in time instead.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    num_predicted: Tensor
    num_reference: Tensor
    num_matched: Tensor
    num_step_matched: Tensor
    num_frames: Tensor
    num_state_right: Tensor
    num_invalid: Tensor

    def __init__(self, *, tolerance_s: float = TOLERANCE_S) -> None:
        super().__init__()
        if tolerance_s < 0:
            raise ConfigError(
                f"DstMetrics: tolerance_s must be >= 0 s, got {tolerance_s}; 2 is usual."
            )
        self.tolerance_s = tolerance_s
        for name in _COUNTS:
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, transcripts: Sequence[Transcript]) -> None:
        """Add streams; those without steps are skipped."""
        for transcript in transcripts:
            if transcript.steps:
                self._add(transcript)

    def _add(self, transcript: Transcript) -> None:
        frames, references = transcript.frames, transcript.references
        tolerance_frames = _tolerance_frames(transcript, self.tolerance_s)
        predicted, expected, num_step_matched, passed_over = _counted_updates(
            transcript, tolerance_frames
        )
        self.num_predicted += len(predicted)
        self.num_reference += len(expected)
        self.num_matched += len(
            _matched_pairs(predicted, expected, tolerance_frames, key=_whole_update)
        )
        self.num_step_matched += num_step_matched
        passed: dict[int, set[str]] = defaultdict(set)
        for i, update in passed_over:
            passed[i].add(update.id)
        unknown: set[str] = set()  # steps whose state may be right, for all that is known
        num_frames = num_right = num_invalid = 0
        for i, (frame, reference) in enumerate(zip(frames, references, strict=True)):
            unknown -= {update.id for update in reference.updates}
            unknown |= passed[i]
            if reference.supervised:
                num_frames += 1
                num_right += _but(unknown, frame.state) == _but(unknown, reference.state)
                num_invalid += frame.dst_invalid
        self.num_frames += num_frames
        self.num_state_right += num_right
        self.num_invalid += num_invalid

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name; empty if nothing was known of any stream with steps."""
        n = {name: int(getattr(self, name)) for name in _COUNTS}
        if not (n["num_frames"] or n["num_predicted"] or n["num_reference"]):
            return {}
        precision, recall, f1 = precision_recall_f1(
            n["num_matched"], n["num_predicted"], n["num_reference"]
        )
        num_union = n["num_predicted"] + n["num_reference"] - n["num_step_matched"]
        values: dict[str, float] = {
            "dst_update_precision": precision,
            "dst_update_recall": recall,
            "dst_update_f1": f1,
            "dst_step_accuracy": n["num_step_matched"] / num_union if num_union else 1.0,
            "dst_transition_accuracy": n["num_matched"] / n["num_step_matched"]
            if n["num_step_matched"]
            else float(num_union == 0),
        }
        if n["num_frames"]:
            values["dst_joint_goal_accuracy"] = n["num_state_right"] / n["num_frames"]
        values["dst_invalid"] = n["num_invalid"]
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def match_updates(
    transcript: Transcript, *, tolerance_s: float = TOLERANCE_S
) -> list[tuple[Update, int | None, int | None]]:
    """Match the updates of one stream as ``dst_update_f1`` does; frames are counted from 0 in it.

    Returns:
        For every update its predicted frame and its reference's frame: both for a matched pair,
        None in place of the one that is missing.
    """
    tolerance_frames = _tolerance_frames(transcript, tolerance_s)
    predicted, expected, _, _ = _counted_updates(transcript, tolerance_frames)
    pairs = _matched_pairs(predicted, expected, tolerance_frames, key=_whole_update)
    found: list[tuple[Update, int | None, int | None]] = [
        (predicted[i][1], predicted[i][0], expected[j][0]) for i, j in pairs
    ]
    taken, answered = {i for i, _ in pairs}, {j for _, j in pairs}
    found += [(u, f, None) for i, (f, u) in enumerate(predicted) if i not in taken]
    found += [(u, None, f) for j, (f, u) in enumerate(expected) if j not in answered]
    return found


def _whole_update(update: Update) -> Hashable:
    return update.id, update.transition


def _tolerance_frames(transcript: Transcript, tolerance_s: float) -> int:
    # A hair more, so that 2 s at 2 fps stay 4 frames after rounding.
    return int(tolerance_s * transcript.fps + 1e-6)


def _but(steps: set[str], state: Mapping[str, StepState]) -> dict[str, StepState]:
    """``state`` without ``steps``."""
    return {step: value for step, value in state.items() if step not in steps}


_Placed = tuple[int, Update]
"""An update with its frame."""


def _counted_updates(
    transcript: Transcript, tolerance_frames: int
) -> tuple[list[_Placed], list[_Placed], int, list[_Placed]]:
    """Predicted and reference updates, how many are matched by step, and what is left out.

    Left out are predicted ones that match nothing where nobody knows what is right.
    """
    references = transcript.references
    predicted = [(i, u) for i, frame in enumerate(transcript.frames) for u in frame.updates]
    expected = [(i, u) for i, reference in enumerate(references) for u in reference.updates]
    pairs = _matched_pairs(predicted, expected, tolerance_frames, key=lambda u: u.id)
    # By step alone, a wrong update may have been given the reference of a right one.
    whole = _matched_pairs(predicted, expected, tolerance_frames, key=_whole_update)
    answers = {i for i, _ in (*pairs, *whole)}
    counted: list[_Placed] = []
    passed_over: list[_Placed] = []
    for i, found in enumerate(predicted):
        known = i in answers or references[found[0]].supervised
        (counted if known else passed_over).append(found)
    return counted, expected, len(pairs), passed_over


def _matched_pairs(
    predicted: Sequence[tuple[int, Update]],
    expected: Sequence[tuple[int, Update]],
    tolerance_frames: int,
    *,
    key: Callable[[Update], Hashable],
) -> list[tuple[int, int]]:
    """The most one-to-one pairs of equal key that lie within the tolerance, by their places."""
    places_of: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, updates in enumerate((predicted, expected)):
        for place, (_, update) in enumerate(updates):
            places_of[key(update)][side].append(place)
    pairs = []
    for left, right in places_of.values():
        # Both ascend. Pairing the earliest of each side, or dropping the one that is too early
        # for everything left, is optimal for intervals of one length.
        i = j = 0
        while i < len(left) and j < len(right):
            distance = predicted[left[i]][0] - expected[right[j]][0]
            if abs(distance) <= tolerance_frames:
                pairs.append((left[i], right[j]))
                i, j = i + 1, j + 1
            elif distance < 0:
                i += 1
            else:
                j += 1
    return pairs
