from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import Conversation, FramesTurn
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.sampling import Decisions, sample_decisions, smooth_targets, turn_ends
from proassist_lit.streaming.policy import DecisionPolicy
from tests.fakes import dialogue, random_features, word_chat


def sequence(speak: list[int], dst: list[int]) -> TokenSequence:
    """Two tokens a frame: one image token, one word."""
    num_frames = len(speak)
    nothing = torch.full((2 * num_frames,), -100)
    return TokenSequence(
        input_ids=torch.zeros(2 * num_frames, dtype=torch.int64),
        labels=nothing,
        dst_labels=nothing,
        image_mask=torch.arange(2 * num_frames) % 2 == 0,
        decision_positions=torch.arange(0, 2 * num_frames, 2),
        speak_labels=torch.tensor(speak, dtype=torch.int8),
        dst_update_labels=torch.tensor(dst, dtype=torch.int8),
        frame_indices=torch.arange(num_frames),
        frames_turns=torch.zeros(len(speak), dtype=torch.int64),
        has_event=torch.tensor(speak) == 1,
    )


def draw(source: TokenSequence, **changes) -> Decisions:
    arguments = {
        "rho": 0.5, "turn_frames": None, "seed": 1, "epoch": 0, "record_id": "video_0_user"
    } | changes  # fmt: skip
    return sample_decisions(source, **arguments)


def frames(mask: Tensor) -> list[int]:
    positions = mask.nonzero().flatten()
    assert (positions % 2 == 0).all()  # at decision tokens only
    return (positions // 2).tolist()


LONG = sequence([0] * 30 + [1, 0, -1] + [0] * 7, [0] * 30 + [0, 1, -1] + [0] * 7)
"""37 silent frames, frame 30 with words, frame 31 with an update, frame 32 neither."""


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.1, 0.29, 0.5, 0.999, 1.0])
def test_nfs_keeps_floor_of_rho_n_silent_frames(rho: float) -> None:
    masks = draw(LONG, rho=rho)

    number = {0.0: 0, 0.02: 0, 0.1: 3, 0.29: 10, 0.5: 18, 0.999: 36, 1.0: 37}[rho]
    silent = [frame for frame in frames(masks.neg_frame_mask) if frame != 31]
    assert len(silent) == number
    assert set(silent) <= {*range(30), *range(33, 40)}


def test_nfs_count_has_no_rounding_error() -> None:
    hundred = sequence([0] * 100, [0] * 100)

    assert len(frames(draw(hundred, rho=0.29).neg_frame_mask)) == 29  # 0.29 * 100 = 28.999...
    assert len(frames(draw(hundred, rho=0.1).neg_frame_mask)) == 10


def test_nfs_always_keeps_frames_with_a_span_and_shares_the_draw() -> None:
    for rho in (0.0, 0.3):
        masks = draw(LONG, rho=rho)

        assert frames(masks.pos_frame_mask) == [30]
        assert frames(masks.dst_pos_frame_mask) == [31]
        assert 31 in frames(masks.neg_frame_mask)  # an update alone is silence
        assert 30 in frames(masks.dst_neg_frame_mask)
        shared = [f for f in frames(masks.neg_frame_mask) if f != 31]
        assert shared == [f for f in frames(masks.dst_neg_frame_mask) if f != 30]


def test_nfs_draw_depends_on_seed_epoch_and_record_only() -> None:
    base = frames(draw(LONG).neg_frame_mask)

    assert frames(draw(LONG).neg_frame_mask) == base
    for change in ({"seed": 2}, {"epoch": 1}, {"record_id": "video_1_user"}):
        assert frames(draw(LONG, **change).neg_frame_mask) != base


def test_frames_that_are_neither_are_never_trained_on() -> None:
    masks = draw(LONG, rho=1.0)
    trained = (
        masks.pos_frame_mask | masks.neg_frame_mask
        | masks.dst_pos_frame_mask | masks.dst_neg_frame_mask
    )  # fmt: skip

    assert 32 not in frames(trained)
    assert len(frames(trained)) == 39


def test_turns_end_at_spans_and_after_silent_frames() -> None:
    #           0  1  2  3  4  5  6  7   8  9 10 11 12
    speak = [0, 0, 1, 0, 0, 0, 0, 0, -1, 0, 0, 0, -1]
    dst__ = [0, 0, 0, 0, 1, 0, 0, 0, -1, 0, 0, 0, -1]
    source = sequence(speak, dst__)

    assert turn_ends(source, 3).nonzero().flatten().tolist() == [2, 4, 7, 10]
    assert turn_ends(source, 2).nonzero().flatten().tolist() == [1, 2, 4, 6, 10]
    assert turn_ends(source, 1).nonzero().flatten().tolist() == [*range(8), 9, 10, 11]
    assert turn_ends(source, 99).nonzero().flatten().tolist() == [2, 4]


@pytest.mark.parametrize("turn_frames", [1, 2, 3, 5])
def test_turns_end_where_streams_of_that_stride_decide(turn_frames: int) -> None:
    speak = [0, 0, 0, 0, -1, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0]
    source = sequence(speak, [-1 if label == -1 else 0 for label in speak])
    policy, decides = DecisionPolicy(stride=turn_frames), []
    for frame, label in enumerate(speak):
        if policy.says(1.0, 0.5):
            decides.append(frame)
        policy.note(1.0, yes=False)
        if label == 1:
            policy.note_span()

    ends = turn_ends(source, turn_frames).nonzero().flatten().tolist()
    assert set(ends) - {7} == {frame for frame in decides if speak[frame] == 0}


def test_per_turn_trains_at_turn_ends_only() -> None:
    source = sequence([0, 0, 1, 0, 0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 1, 0, 0, 0, 0, -1])
    masks = draw(source, rho=1.0, turn_frames=2)

    assert frames(masks.pos_frame_mask) == [2]
    assert frames(masks.neg_frame_mask) == [1, 4, 6, 8]
    assert frames(masks.dst_pos_frame_mask) == [4]
    assert frames(masks.dst_neg_frame_mask) == [1, 2, 6, 8]


def test_per_turn_draws_among_silent_turns() -> None:
    masks = draw(LONG, rho=0.5, turn_frames=4)  # 7 silent turns before frame 30, 2 after 31

    assert len([f for f in frames(masks.neg_frame_mask) if f != 31]) == 4
    assert set(frames(masks.neg_frame_mask)) <= {3, 7, 11, 15, 19, 23, 27, 31, 35, 39}
    assert frames(masks.pos_frame_mask) == [30]


def test_smoothed_targets_rise_towards_the_frame_and_fall_behind_it() -> None:
    labels = torch.tensor([0, 0, 1, 0, 0, 0, -1, 1], dtype=torch.int8)

    targets = smooth_targets(labels, width=2.0)

    distance = torch.tensor([2.0, 1, 0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(targets, torch.exp(-((distance / 2) ** 2) / 2))
    assert smooth_targets(labels, 0.0).tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert not smooth_targets(torch.zeros(3), 2.0).any()


def test_smoothing_is_in_seconds_and_reaches_the_tokens() -> None:
    plain, soft = draw(LONG), draw(LONG, smoothing_s=2.0, fps=4.0)

    assert torch.equal(plain.speak_targets > 0, plain.pos_frame_mask)
    at = soft.speak_targets[LONG.decision_positions]
    torch.testing.assert_close(at, smooth_targets(LONG.speak_labels, 8.0))
    assert not soft.speak_targets[1::2].any()  # words have no decision
    assert torch.equal(plain.neg_frame_mask, soft.neg_frame_mask)


def test_relevance_is_learnt_at_every_frame_that_is_labelled_or_not_at_all() -> None:
    labels = torch.tensor([0, 1, 1, -1, 0], dtype=torch.int8)
    source = sequence([0, 0, 0, -1, 0], [0, 0, 0, -1, 0])

    masks = draw(replace(source, relevance_labels=labels), rho=0.0)

    assert frames(masks.relevance_pos_frame_mask) == [1, 2]
    assert frames(masks.relevance_neg_frame_mask) == [0, 4]
    assert not masks.neg_frame_mask.any()
    assert draw(source).relevance_pos_frame_mask is None
    assert draw(source).relevance_neg_frame_mask is None


def test_data_without_steps_cannot_teach_relevance() -> None:
    def examples(record: Conversation, *, relevance: bool) -> ExampleSet:
        return ExampleSet(
            [record], lambda c: random_features(c.num_frames), word_chat(), num_tokens_per_img=1,
            max_seq_len=4096, rho=1.0, turn_frames=None, seed=0, relevance=relevance,
        )  # fmt: skip

    silent = dialogue((FramesTurn(start=0, end=3),))
    for record in (silent, replace(silent, steps=(), initial_state={})):
        with pytest.raises(RecordError, match=r"train\.jsonl:1 and 0 others: .*take data whose"):
            examples(record, relevance=True)
        assert examples(record, relevance=False)[0, 0].relevance_pos_frame_mask is None
    learnt = examples(dialogue(), relevance=True)[0, 0]
    assert int(learnt.relevance_pos_frame_mask.sum()) == 7
