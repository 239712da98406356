from __future__ import annotations

import pickle
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.collate import collate, pack
from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.examples import ExampleSet, build_example_sequence
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.sequence.batches import example_set


def test_example_is_a_function_of_epoch_and_index() -> None:
    examples = example_set()
    masks = [examples[epoch, 0].neg_frame_mask.tolist() for epoch in range(6)]

    assert examples[4, 0].neg_frame_mask.tolist() == masks[4]
    assert len({tuple(mask) for mask in masks}) > 1
    assert len(examples) == 2
    assert examples.lengths == [len(examples[0, i].input_ids) for i in range(2)]


def test_sequences_are_the_same_after_they_were_sent() -> None:
    for relevance in (False, True):
        examples = example_set(relevance=relevance)
        for sequence in examples.sequences:
            sent = pickle.loads(pickle.dumps(sequence))
            for f in fields(sequence):
                mine, other = getattr(sequence, f.name), getattr(sent, f.name)
                if mine is None:
                    assert other is None
                else:
                    assert torch.equal(mine, other)
                    assert mine.dtype == other.dtype


def test_cut_example_brings_the_features_of_its_frames_only() -> None:
    whole, cut = example_set(5)[0, 0], example_set(5, max_seq_len=40)[0, 0]

    assert len(cut.input_ids) <= 40
    assert len(cut.image_features) == int(cut.image_mask.sum())
    assert len(cut.image_features) < len(whole.image_features)
    assert torch.equal(cut.image_features, whole.image_features[: len(cut.image_features)])


def test_only_the_features_of_the_frames_that_are_kept_are_read() -> None:
    asked: list[tuple[int, int]] = []
    conversation = dialogue()

    def read(part: Conversation) -> Tensor:
        asked.append((part.start_frame_idx, part.end_frame_idx))
        return random_features(part.num_frames, 1)

    for max_seq_len in (4096, 40):
        examples = ExampleSet(
            [conversation], read, word_chat(), num_tokens_per_img=1, max_seq_len=max_seq_len,
            rho=1.0, turn_frames=None, seed=3,
        )  # fmt: skip
        kept = len(examples[0, 0].image_features)
        assert asked.pop() == (conversation.start_frame_idx, conversation.start_frame_idx + kept)
    assert 0 < kept < conversation.num_frames


def test_example_set_names_a_record_that_does_not_fit() -> None:
    with pytest.raises(RecordError, match=r"train\.jsonl:1: the prompt and the first frame"):
        example_set(max_seq_len=8)


@pytest.mark.parametrize("k", [1, 5])
def test_padded_batch_equals_its_members(k: int) -> None:
    model = tiny_model()
    examples = [example_set(k, rho=1.0)[0, i] for i in range(2)]
    batch = collate(examples)
    with torch.no_grad():
        out = model(batch)
        for row, example in enumerate(examples):
            alone = model(collate([example]))
            length = len(example.input_ids)
            torch.testing.assert_close(out.hidden[row, :length], alone.hidden[0])
            torch.testing.assert_close(out.speak_logits[row, :length], alone.speak_logits[0])
            torch.testing.assert_close(out.dst_logits[row, :length], alone.dst_logits[0])

    for row, example in enumerate(examples):
        length = len(example.input_ids)
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (
            batch.input_ids.shape[1] - length
        )
        for name in ("input_ids", "labels", "dst_labels", "image_mask", "pos_frame_mask",
                     "neg_frame_mask", "dst_pos_frame_mask", "dst_neg_frame_mask"):  # fmt: skip
            assert torch.equal(getattr(batch, name)[row, :length], getattr(example, name)), name
        for name in ("labels", "dst_labels"):
            assert (getattr(batch, name)[row, length:] == -100).all()
        for name in ("image_mask", "pos_frame_mask", "neg_frame_mask", "dst_pos_frame_mask",
                     "dst_neg_frame_mask"):  # fmt: skip
            assert getattr(batch, name).dtype == torch.bool
            assert not getattr(batch, name)[row, length:].any()


def test_padding_is_known_by_length_not_by_token() -> None:
    example = example_set()[0, 1]
    zeros = replace(example, input_ids=torch.zeros_like(example.input_ids))  # 0 is what pads

    batch = collate([zeros, example_set()[0, 0]])

    assert int(batch.attention_mask[0].sum()) == len(example.input_ids)


def test_collate_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="got no examples"):
        collate([])


def test_batch_moves_every_field() -> None:
    batch = collate([example_set()[0, 0]])

    moved = batch.to("meta", non_blocking=True)

    assert isinstance(moved, Batch)
    assert {t.device.type for t in vars(moved).values() if isinstance(t, Tensor)} == {"meta"}


def test_the_first_token_of_a_packed_conversation_is_not_learnt_from_the_one_before() -> None:
    one = example_set()[0, 1]
    labels = one.input_ids.clone()
    batch = pack([replace(one, labels=labels, dst_labels=labels)] * 3)

    length = len(labels)
    for found in (batch.labels, batch.dst_labels):
        assert (found[0, ::length] == -100).all()
        assert torch.equal(found[0, 1:length], labels[1:])
    assert torch.equal(one.labels, example_set()[0, 1].labels)


def test_pack_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="got no examples"):
        pack([])


def test_what_is_relevant_is_learnt_from_updates_that_are_not_written() -> None:
    def made(rules: SequenceRules) -> TokenSequence:
        return build_example_sequence(
            dialogue(), word_chat(), num_tokens_per_img=1, max_seq_len=4096, rules=rules,
            relevance=True,
        )  # fmt: skip

    written, unwritten = made(OURS), made(replace(OURS, feed_updates=False))

    assert 0 < int((written.relevance_labels == 1).sum()) < len(written.relevance_labels)
    assert torch.equal(unwritten.relevance_labels, written.relevance_labels)
    opening = word_chat().opening_ids(Role.DST)[0]
    assert opening in written.input_ids.tolist()
    assert opening not in unwritten.input_ids.tolist()
    assert (unwritten.dst_labels == IGNORE_INDEX).all()
    assert (unwritten.dst_update_labels == -1).all()
