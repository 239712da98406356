"""Decisions that are trained on: masks of both heads, sub-sampling, turns."""

from __future__ import annotations

import math
from dataclasses import fields
from fractions import Fraction
from itertools import groupby

import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.sampling import Decisions, sample_decisions, turn_ends
from tests.properties.strategies import Case, cases, examples

RHOS = st.sampled_from([0.0, 0.1, 0.29, 1 / 3, 0.5, 0.7, 0.99, 1.0]) | st.floats(0, 1)
TURNS = st.none() | st.integers(1, 4)


def sample(sequence: TokenSequence, rho: float, turn_frames: int | None, **given) -> Decisions:
    where = {"seed": 1, "epoch": 0, "record_id": "video_0_user", **given}
    return sample_decisions(sequence, rho=rho, turn_frames=turn_frames, **where)


def masks(decisions: Decisions) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors(decisions).items() if "mask" in name}


def tensors(decisions: Decisions) -> dict[str, torch.Tensor]:
    """All but relevance, where nobody learns it."""
    found = {f.name: getattr(decisions, f.name) for f in fields(decisions)}
    return {name: value for name, value in found.items() if value is not None}


def kinds(sequence: TokenSequence) -> list[str]:
    """Of every frame: span, silent, or neither, for both heads together."""
    pairs = zip(sequence.speak_labels.tolist(), sequence.dst_update_labels.tolist(), strict=True)
    return ["span" if 1 in pair else "silent" if 0 in pair else "neither" for pair in pairs]


def silent_frames(sequence: TokenSequence, turn_frames: int | None) -> set[int]:
    """Frames among which is drawn: silent ones, or the last ones of silent turns."""
    step, every = turn_frames or 1, kinds(sequence)
    return {
        frame
        for is_span, run in groupby(range(len(every)), key=lambda frame: every[frame] == "span")
        for frame in list(run)[step - 1 :: step]  # since the last span
        if not is_span and every[frame] == "silent"
    }


@examples(70)
@given(case=cases(), rho=RHOS, turn_frames=TURNS)
def test_masks_count_what_the_rules_say(case: Case, rho: float, turn_frames: int | None) -> None:
    built = case.build(relevance=True)
    decisions = sample(built, rho, turn_frames)
    at = built.decision_positions
    is_decision = torch.zeros(len(built.input_ids), dtype=torch.bool)
    is_decision[at] = True
    for mask in masks(decisions).values():
        assert mask.dtype == torch.bool
        assert not (mask & ~is_decision).any()
    assert not (decisions.pos_frame_mask & decisions.neg_frame_mask).any()
    assert not (decisions.dst_pos_frame_mask & decisions.dst_neg_frame_mask).any()

    silent = silent_frames(built, turn_frames)
    has_span = [kind == "span" for kind in kinds(built)]
    kept: list[set[int]] = []
    for labels, pos, neg in (
        (built.speak_labels, decisions.pos_frame_mask, decisions.neg_frame_mask),
        (built.dst_update_labels, decisions.dst_pos_frame_mask, decisions.dst_neg_frame_mask),
    ):
        assert torch.equal(pos[at], labels == 1)  # no frame to act at is ever left out
        no = set(neg[at].nonzero().flatten().tolist())
        assert all(labels[frame] == 0 for frame in no)
        # Where the other head acts, this one learns not to, whatever rho is.
        assert {f for f in no if has_span[f]} == {
            f for f, span in enumerate(has_span) if span and labels[f] == 0
        }
        kept.append({f for f in no if not has_span[f]})
        assert kept[-1] <= silent
    speak_kept, dst_kept = kept
    share = Fraction(rho).limit_denominator(10**9)  # 0.29 * 100 is 29
    assert len(speak_kept) == math.floor(share * len(silent))
    if case.conversation.steps:
        assert speak_kept == dst_kept
    else:
        assert not dst_kept
        assert not decisions.dst_pos_frame_mask.any()


@examples(40)
@given(case=cases(), turn_frames=st.integers(1, 4))
def test_a_turn_ends_at_spans_and_after_silent_frames(case: Case, turn_frames: int) -> None:
    built = case.build()
    spans = {frame for frame, kind in enumerate(kinds(built)) if kind == "span"}
    ends = set(turn_ends(built, turn_frames).nonzero().flatten().tolist())
    assert ends == spans | silent_frames(built, turn_frames)


@examples(40)
@given(
    case=cases(tokens=(1,)),
    rho=RHOS,
    turn_frames=TURNS,
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_a_draw_depends_on_seed_epoch_and_record_only(
    case: Case, rho: float, turn_frames: int | None, seed: int, epoch: int
) -> None:
    built = case.build(relevance=True)
    name = case.conversation.id
    first = sample(built, rho, turn_frames, seed=seed, epoch=epoch, record_id=name)
    torch.manual_seed(seed)  # no global generator has a part in it
    again = sample(
        case.build(relevance=True), rho, turn_frames, seed=seed, epoch=epoch, record_id=name
    )
    drawn = tensors(again)
    for name, tensor in tensors(first).items():
        assert torch.equal(tensor, drawn.pop(name))
    assert not drawn


@examples(40)
@given(case=cases(tokens=(1,)), which=st.sampled_from(["seed", "epoch", "record_id"]))
def test_silent_frames_are_drawn_anew(case: Case, which: str) -> None:
    built = case.build()
    silent = silent_frames(built, None)
    draws = [masks(sample(built, 0.5, None, **{which: number})) for number in range(12)]
    distinct = {tuple(draw["neg_frame_mask"].tolist()) for draw in draws}
    # Of six frames three are drawn in 20 ways: the same one twelve times is no chance.
    assert len(distinct) > 1 or len(silent) < 6
    # Over the epochs every silent frame has its turn.
    if which == "epoch" and silent:
        many = [sample(built, 0.5, None, epoch=n).neg_frame_mask for n in range(60)]
        seen = torch.stack(many).any(0)[built.decision_positions]
        assert all(seen[frame] for frame in silent) or len(silent) == 1


@examples(40)
@given(case=cases(tokens=(1,)), width_s=st.floats(0, 5), fps=st.sampled_from([1.0, 2.0, 30.0]))
def test_targets_are_probabilities_that_are_certain_at_frames_to_act_at(
    case: Case, width_s: float, fps: float
) -> None:
    built = case.build()
    decisions = sample(built, 1.0, None, smoothing_s=width_s, fps=fps)
    for targets, pos, neg in (
        (decisions.speak_targets, decisions.pos_frame_mask, decisions.neg_frame_mask),
        (decisions.dst_targets, decisions.dst_pos_frame_mask, decisions.dst_neg_frame_mask),
    ):
        assert ((targets >= 0) & (targets <= 1)).all()
        assert (targets[pos] == 1).all()
        if width_s == 0:
            assert (targets[neg] == 0).all()
