"""Which decisions of a sequence are trained on: negative-frame sub-sampling and turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from proassist_lit.data.seeding import stable_rng
from proassist_lit.sequence.builder import TokenSequence


@dataclass(frozen=True, kw_only=True)
class DecisionMasks:
    """Masks over the tokens of one sequence, each (T,) bool, true at decision tokens only."""

    pos_frame_mask: Tensor
    neg_frame_mask: Tensor
    dst_pos_frame_mask: Tensor
    dst_neg_frame_mask: Tensor


def turn_ends(sequence: TokenSequence, turn_frames: int) -> Tensor:
    """Frames at which a turn of the per-turn objective ends.

    A turn ends at a frame that a span follows, or after ``turn_frames`` silent frames; never at a
    frame that is neither. User text starts the count anew: it begins another turn.

    Args:
        sequence: F frames.
        turn_frames: silent frames of a turn; >= 1.

    Returns:
        (F,) bool.
    """
    ends = torch.zeros(len(sequence.speak_labels), dtype=torch.bool)
    silent = 0
    speak, dst = sequence.speak_labels.tolist(), sequence.dst_update_labels.tolist()
    for frame, (speak_label, dst_label) in enumerate(zip(speak, dst, strict=True)):
        if speak_label == 1 or dst_label == 1:
            ends[frame], silent = True, 0
        elif speak_label == -1 and dst_label == -1:
            silent = 0
        else:
            silent += 1
            if silent == turn_frames:
                ends[frame], silent = True, 0
    return ends


def sample_decisions(
    sequence: TokenSequence,
    *,
    rho: float,
    turn_frames: int | None,
    seed: int,
    epoch: int,
    record_id: str,
) -> DecisionMasks:
    """Choose the decisions that are trained on in ``epoch``.

    Negative-frame sub-sampling (NFS): of the n frames without any span (per-turn: of the n turns
    that end without one), ``floor(rho * n)`` are kept, the same for both heads; frames with a span
    are always kept.

    Args:
        sequence: the conversation; T tokens, F frames.
        rho: share of the silent frames that is kept; in [0, 1].
        turn_frames: None for a decision at every frame, else silent frames of a turn.
        seed: seed of the run; with ``epoch`` and ``record_id`` it decides the draw, so that every
            rank and worker draws the same.
        epoch: number of the epoch.
        record_id: name of the record.

    Source: ProAssist, arXiv:2506.05904, section on negative frame sub-sampling.
    """
    speak, dst = sequence.speak_labels, sequence.dst_update_labels
    spans = (speak == 1) | (dst == 1)
    silent = ~spans & ((speak == 0) | (dst == 0))
    if turn_frames is not None:
        silent &= turn_ends(sequence, turn_frames)
    candidates = silent.nonzero().flatten()
    kept = spans.clone()
    if rho >= 1.0:
        kept[candidates] = True
    else:
        # Guard against 0.1 * 30 = 3.0000000000000004 and 0.29 * 100 = 28.999999999999996.
        number = math.floor(rho * len(candidates) + 1e-9)
        rng = stable_rng("nfs", seed, epoch, record_id)
        kept[candidates[torch.from_numpy(rng.permutation(len(candidates))[:number])]] = True

    def mask(labels: Tensor, wanted: int) -> Tensor:
        out = torch.zeros(len(sequence.input_ids), dtype=torch.bool)
        out[sequence.decision_positions[kept & (labels == wanted)]] = True
        return out

    return DecisionMasks(
        pos_frame_mask=mask(speak, 1),
        neg_frame_mask=mask(speak, 0),
        dst_pos_frame_mask=mask(dst, 1),
        dst_neg_frame_mask=mask(dst, 0),
    )
