"""Token sequences: what is written, what is learnt, where they are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.sequence.chat import Role
from proassist_lit.types import IGNORE_INDEX
from tests.properties.oracle import expect, ids, labels
from tests.properties.strategies import Case, cases, examples


@examples(60)
@given(case=cases())
def test_sequence_is_the_conversation_token_by_token(case: Case) -> None:
    expected, built = expect(case), case.build()
    pieces = expected.pieces(image=[case.chat.image_id] * case.num_tokens_per_img)

    assert built.input_ids.tolist() == ids(pieces)
    assert built.labels.tolist() == labels(pieces, Role.ASSISTANT)
    assert built.dst_labels.tolist() == labels(pieces, Role.DST)
    assert built.frame_indices.tolist() == [frame.index for frame in expected.frames]
    assert built.speak_labels.tolist() == [frame.speak for frame in expected.frames]
    assert built.dst_update_labels.tolist() == [frame.dst for frame in expected.frames]


@examples(60)
@given(case=cases())
def test_labels_are_spans_in_full_and_nothing_else(case: Case) -> None:
    built, chat = case.build(), case.chat
    for column in (built.labels, built.dst_labels):
        assert ((column == IGNORE_INDEX) | (column == built.input_ids)).all()
        assert (column[built.image_mask] == IGNORE_INDEX).all()
    assert not ((built.labels != IGNORE_INDEX) & (built.dst_labels != IGNORE_INDEX)).any()
    # Every run of labels ends with the end of turn: the assistant learns when to stop.
    for role, column in ((Role.ASSISTANT, built.labels), (Role.DST, built.dst_labels)):
        learnt = column != IGNORE_INDEX
        ends = [int(i) for i in learnt.nonzero() if not learnt[i + 1 : i + 2].any()]
        assert all(column[end] == chat.end_of_turn_id for end in ends)
        if not chat.format.train_openings:
            opening = chat.opening_ids(role)
            starts = [int(i) for i in learnt.nonzero() if not i or not learnt[i - 1]]
            for start in starts:
                assert built.input_ids[start - len(opening) : start].tolist() == opening


@examples(60)
@given(case=cases())
def test_decisions_are_read_at_the_last_image_token_of_every_frame(case: Case) -> None:
    built, k = case.build(), case.num_tokens_per_img
    assert int(built.image_mask.sum()) == k * case.conversation.num_frames
    images = built.image_mask.nonzero().flatten().view(-1, k)
    assert torch.equal(images[:, -1], built.decision_positions)
    assert torch.equal(images - images[:, :1], torch.arange(k).expand_as(images))
    spans = (built.speak_labels == 1) | (built.dst_update_labels == 1)
    follows = [
        int(i) + 1 < len(built.input_ids) and not built.image_mask[i + 1]
        for i in built.decision_positions
    ]
    assert all(follow for follow, span in zip(follows, spans.tolist(), strict=True) if span)


@examples(60)
@given(case=cases(), data=st.data())
def test_a_cut_keeps_whole_frames_and_learns_nothing_of_the_rest(
    case: Case, data: st.DataObject
) -> None:
    expected, whole = expect(case), case.build()
    image = [case.chat.image_id] * case.num_tokens_per_img
    ends = [len(ids(expected.pieces(n, image=image))) for n in range(len(expected.frames) + 1)]
    limit = data.draw(st.integers(ends[0], len(whole.input_ids) + 1), label="max_seq_len")
    if limit < ends[1]:
        with pytest.raises(ValueError, match="do not fit into max_seq_len"):
            case.build(limit)
        return
    cut = case.build(limit)
    length = len(cut.input_ids)
    fitting = [end for end in ends if end <= limit]
    assert length == (len(whole.input_ids) if len(whole.input_ids) <= limit else fitting[-1])
    assert len(cut.decision_positions) == len(fitting) - 1
    for name in ("input_ids", "labels", "dst_labels", "image_mask"):
        assert torch.equal(getattr(cut, name), getattr(whole, name)[:length])
    for name in ("decision_positions", "speak_labels", "dst_update_labels", "frame_indices"):
        assert torch.equal(getattr(cut, name), getattr(whole, name)[: len(fitting) - 1])
