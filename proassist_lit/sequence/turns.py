"""Single turns: every decision of a conversation as a row of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from proassist_lit.types import IGNORE_INDEX, Example


def single_turns(example: Example) -> list[Example]:
    """Split ``example`` so that every row bears one decision.

    The row of a turn is the conversation up to the turn's frame and the words that follow it; of
    the labels it keeps its own. Over all rows, decisions and labels are those of ``example``, each
    once, and causal attention gives them the same hidden states: the losses are the same.

    Args:
        example: T tokens with any number of decisions; without one it is returned as it is.
    """
    masks = (
        example.pos_frame_mask
        | example.neg_frame_mask
        | example.dst_pos_frame_mask
        | example.dst_neg_frame_mask
    )
    decisions = masks.nonzero().flatten().tolist()
    if not decisions:
        return [example]
    learnt = (example.labels != IGNORE_INDEX) | (example.dst_labels != IGNORE_INDEX)
    rows = []
    for turn, decision in enumerate(decisions):
        is_first, is_last = turn == 0, turn == len(decisions) - 1
        start = 0 if is_first else decision + 1  # of the words that are this turn's
        stop = len(learnt) if is_last else decisions[turn + 1]
        own = learnt[start:stop].nonzero().flatten()
        end = max(decision + 1, start + int(own[-1]) + 1 if len(own) else 0)
        rows.append(_row(example, decision, start, end))
    return rows


def _row(example: Example, decision: int, start: int, end: int) -> Example:
    """The first ``end`` tokens, the decision at ``decision``, and the labels from ``start``."""
    here = torch.arange(end) == decision

    def label(labels: Tensor) -> Tensor:
        out = labels[:end].clone()
        out[:start] = IGNORE_INDEX
        return out

    image_mask = example.image_mask[:end]
    return replace(
        example,
        input_ids=example.input_ids[:end],
        image_mask=image_mask,
        image_features=example.image_features[: int(image_mask.sum())],
        labels=label(example.labels),
        dst_labels=label(example.dst_labels),
        pos_frame_mask=example.pos_frame_mask[:end] & here,
        neg_frame_mask=example.neg_frame_mask[:end] & here,
        dst_pos_frame_mask=example.dst_pos_frame_mask[:end] & here,
        dst_neg_frame_mask=example.dst_neg_frame_mask[:end] & here,
        speak_targets=example.speak_targets[:end],
        dst_targets=example.dst_targets[:end],
    )
