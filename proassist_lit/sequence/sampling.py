"""Which decisions of a sequence are trained on: negative-frame sub-sampling and turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from proassist_lit.data.seeding import stable_rng
from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.rules import OURS, SequenceRules


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Decisions of one sequence that are trained on; masks are true at decision tokens only."""

    pos_frame_mask: Tensor  # (T,) bool
    neg_frame_mask: Tensor  # (T,) bool
    dst_pos_frame_mask: Tensor  # (T,) bool
    dst_neg_frame_mask: Tensor  # (T,) bool
    speak_targets: Tensor  # (T,) float32; P(speak) to learn, at decision tokens
    dst_targets: Tensor  # (T,) float32; P(update) likewise
    relevance_pos_frame_mask: Tensor | None = None  # (T,) bool; None where nobody learns it
    relevance_neg_frame_mask: Tensor | None = None  # (T,) bool


def turn_ends(sequence: TokenSequence, turn_frames: int) -> Tensor:
    """Frames at which a turn of the per-turn objective ends.

    A turn ends at a frame that a span follows, or at every ``turn_frames`` frames since the last
    span, as a stream with that ``stream.stride`` decides; never at a frame that is neither.

    Args:
        sequence: F frames.
        turn_frames: frames of a silent turn; >= 1.

    Returns:
        (F,) bool.
    """
    ends = torch.zeros(len(sequence.speak_labels), dtype=torch.bool)
    since_span = 0
    speak, dst = sequence.speak_labels.tolist(), sequence.dst_update_labels.tolist()
    for frame, (speak_label, dst_label) in enumerate(zip(speak, dst, strict=True)):
        if speak_label == 1 or dst_label == 1:
            ends[frame], since_span = True, 0
            continue
        since_span += 1
        is_silent = speak_label == 0 or dst_label == 0
        ends[frame] = is_silent and since_span % turn_frames == 0
    return ends


def sample_decisions(
    sequence: TokenSequence,
    *,
    rho: float,
    turn_frames: int | None,
    seed: int,
    epoch: int,
    record_id: str,
    smoothing_s: float = 0.0,
    fps: float = 2.0,
    rules: SequenceRules = OURS,
) -> Decisions:
    """Choose the decisions that are trained on in ``epoch``.

    Negative-frame sub-sampling (NFS): of the n frames without any span (per-turn: of the n turns
    that end without one), ``floor(rho * n)`` are kept, the same for both heads; frames with a span
    are always kept. Of relevance, where it is labelled, every frame is learnt.

    Args:
        sequence: the conversation; T tokens, F frames.
        rho: share of the silent frames that is kept; in [0, 1].
        turn_frames: None for a decision at every frame, else silent frames of a turn.
        seed: seed of the run; with ``epoch`` and ``record_id`` it decides the draw, so that every
            rank and worker draws the same.
        epoch: number of the epoch.
        record_id: name of the record.
        smoothing_s: width of temporal label smoothing, seconds; 0 for none.
        fps: frames per second, for the smoothing.
        rules: whose count of silent frames.

    Source: ProAssist, arXiv:2506.05904, section on negative frame sub-sampling.
    """
    speak, dst = sequence.speak_labels, sequence.dst_update_labels
    spans = (speak == 1) | (dst == 1)
    silent = ~spans & ((speak == 0) | (dst == 0))
    if turn_frames is not None:
        silent &= turn_ends(sequence, turn_frames)
    kept = spans.clone()
    if rules.keep_event_frames:
        kept |= silent & sequence.has_event
        silent &= ~sequence.has_event
    rng = stable_rng("nfs", seed, epoch, record_id)
    for candidates in _pools(silent, sequence, rules):
        number = _num_kept(len(candidates), rho, rules)
        if number < len(candidates):
            candidates = candidates[torch.from_numpy(rng.permutation(len(candidates))[:number])]
        kept[candidates] = True

    def at_tokens(values: Tensor) -> Tensor:
        out = torch.zeros(len(sequence.input_ids), dtype=values.dtype)
        out[sequence.decision_positions] = values
        return out

    relevance = sequence.relevance_labels
    return Decisions(
        pos_frame_mask=at_tokens(kept & (speak == 1)),
        neg_frame_mask=at_tokens(kept & (speak == 0)),
        dst_pos_frame_mask=at_tokens(kept & (dst == 1)),
        dst_neg_frame_mask=at_tokens(kept & (dst == 0)),
        speak_targets=at_tokens(smooth_targets(speak, smoothing_s * fps)),
        dst_targets=at_tokens(smooth_targets(dst, smoothing_s * fps)),
        relevance_pos_frame_mask=None if relevance is None else at_tokens(relevance == 1),
        relevance_neg_frame_mask=None if relevance is None else at_tokens(relevance == 0),
    )


def _pools(silent: Tensor, sequence: TokenSequence, rules: SequenceRules) -> list[Tensor]:
    """Silent frames, by the group in which their share is drawn."""
    if not rules.sample_by_turn:
        return [silent.nonzero().flatten()]
    turns = sequence.frames_turns
    return [(silent & (turns == turn)).nonzero().flatten() for turn in sorted(set(turns.tolist()))]


def _num_kept(num_frames: int, rho: float, rules: SequenceRules) -> int:
    if rules.sample_by_turn and num_frames and rho < 1.0:
        return max(int(rho * num_frames), 1)
    # Guard against 0.1 * 30 = 3.0000000000000004 and 0.29 * 100 = 28.999999999999996.
    return math.floor(rho * num_frames + 1e-9)


def smooth_targets(labels: Tensor, width: float) -> Tensor:
    """Targets that rise towards the frames to act at, and fall behind them.

    A frame next to the right one is nearly right, yet the plain target calls it as wrong as any.
    The target of a frame at distance d from the nearest frame to act at is
    ``exp(-(d / width) ** 2 / 2)``.

    Args:
        labels: (F,) 1 act, 0 do not, -1 neither.
        width: standard deviation, frames; 0 for plain targets.

    Returns:
        (F,) float32 in [0, 1]; exactly 1 at frames to act at.
    """
    acts = (labels == 1).nonzero().flatten()
    if width <= 0 or not len(acts):
        return (labels == 1).float()
    frames = torch.arange(len(labels))
    after = torch.searchsorted(acts, frames)
    distance = torch.minimum(
        (frames - acts[(after - 1).clamp(min=0)]).abs(),
        (acts[after.clamp(max=len(acts) - 1)] - frames).abs(),
    )
    return torch.exp(-0.5 * (distance / width) ** 2)
