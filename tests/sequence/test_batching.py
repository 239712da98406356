from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.data.collate import collate, pack
from proassist_lit.data.conversation import FramesTurn
from proassist_lit.errors import RecordError
from proassist_lit.sequence.batching import EpochBatches, SharedOut
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch
from tests.fakes import DIALOGUE, dialogue, random_features, tiny_model, word_chat

LENGTHS = [(i * 37) % 101 for i in range(70)]


def order(seed: int = 0, epoch: int = 0, **kwargs) -> list[list[tuple[int, int]]]:
    batches = EpochBatches(LENGTHS, 4, seed=seed, **kwargs)
    batches.set_epoch(epoch)
    return list(batches)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = EpochBatches(LENGTHS, 4, seed=0)

    assert list(first) == list(first) == order()
    assert order(epoch=1) != order()
    assert order(seed=1) != order()


def test_every_example_comes_once_an_epoch() -> None:
    batches = order(epoch=3)

    assert sorted(index for batch in batches for _, index in batch) == list(range(70))
    assert {epoch for batch in batches for epoch, _ in batch} == {3}
    assert sorted(map(len, batches)) == [2] + [4] * 17
    assert len(EpochBatches(LENGTHS, 4, seed=0)) == 18


def test_batches_hold_examples_of_similar_length() -> None:
    def padding(batches) -> int:
        rows = [[LENGTHS[index] for _, index in batch] for batch in batches]
        return sum(max(row) * len(row) - sum(row) for row in rows)

    assert padding(order()) < 0.3 * padding(order(shuffle=False))


def test_without_shuffling_order_and_epoch_stay() -> None:
    assert order(shuffle=False, epoch=5) == order(shuffle=False)
    assert [i for batch in order(shuffle=False, epoch=5) for _, i in batch] == list(range(70))
    assert {epoch for batch in order(shuffle=False, epoch=5) for epoch, _ in batch} == {0}


def test_batch_sampler_is_its_own_sampler() -> None:
    batches = EpochBatches(LENGTHS, 4, seed=0)
    batches.sampler.set_epoch(7)  # how Lightning reaches a batch sampler

    assert next(iter(batches))[0][0] == 7


@pytest.mark.parametrize("options", [{}, {"max_tokens": 240}, {"max_tokens": 240, "packed": True}])
def test_an_epoch_goes_on_after_the_batches_that_training_has_had(options: dict[str, Any]) -> None:
    whole = {epoch: order(epoch=epoch, **options) for epoch in range(5)}
    resumed = EpochBatches(LENGTHS, 4, seed=0, **options)
    resumed.go_on(2, 5)
    found = {}
    for epoch in (2, 3, 4):
        resumed.set_epoch(epoch)
        found[epoch] = list(resumed)

    assert len({len(batches) for batches in whole.values()}) == 1
    assert found == {2: whole[2][5:], 3: whole[3], 4: whole[4]}
    assert whole[2] != whole[3]


def example_set(k: int = 1, *, max_seq_len: int = 4096, rho: float = 0.5, **kwargs) -> ExampleSet:
    short = dialogue((*DIALOGUE[:4], FramesTurn(start=11, end=14)), video_uid="short")
    return ExampleSet(
        [dialogue(), short],
        lambda c: random_features(c.num_frames, k, seed=len(c.video_uid)),
        word_chat(),
        num_tokens_per_img=k,
        max_seq_len=max_seq_len,
        rho=rho,
        turn_frames=None,
        seed=3,
        **kwargs,
    )


def test_example_is_a_function_of_epoch_and_index() -> None:
    examples = example_set()
    masks = [examples[epoch, 0].neg_frame_mask.tolist() for epoch in range(6)]

    assert examples[4, 0].neg_frame_mask.tolist() == masks[4]
    assert len({tuple(mask) for mask in masks}) > 1
    assert len(examples) == 2
    assert examples.lengths == [len(examples[0, i].input_ids) for i in range(2)]


def test_cut_example_brings_the_features_of_its_frames_only() -> None:
    whole, cut = example_set(5)[0, 0], example_set(5, max_seq_len=40)[0, 0]

    assert len(cut.input_ids) <= 40
    assert len(cut.image_features) == int(cut.image_mask.sum())
    assert len(cut.image_features) < len(whole.image_features)
    assert torch.equal(cut.image_features, whole.image_features[: len(cut.image_features)])


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


def shares(**kwargs) -> list[list[list[int]]]:
    """Of every step, what each of three processes takes."""
    each = [order(epoch=2, rank=rank, num_ranks=3, **kwargs) for rank in range(3)]
    assert [len(EpochBatches(LENGTHS, 4, seed=0, num_ranks=3, **kwargs))] * 3 == list(
        map(len, each)
    )
    return [[[index for _, index in batch] for batch in step] for step in zip(*each, strict=True)]


def test_processes_share_out_the_batches_of_one() -> None:
    alone = EpochBatches(LENGTHS, 12, seed=0)
    alone.set_epoch(2)
    steps = shares()
    assert len(steps) == len(alone) == 6
    for step, batch in zip(steps, alone, strict=True):
        assert sorted(chain(*step)) == sorted(index for _, index in batch)
        assert max(map(len, step)) - min(map(len, step)) <= 1


def test_processes_have_about_as_many_tokens() -> None:
    for step in shares():
        tokens = [sum(LENGTHS[i] for i in share) for share in step]
        longest = max(LENGTHS[i] for share in step for i in share)
        if len(set(map(len, step))) == 1:
            assert max(tokens) - min(tokens) <= longest / 2


def test_what_is_too_little_for_all_processes_is_left_out() -> None:
    batches = [list(EpochBatches(LENGTHS[:14], 4, seed=0, rank=r, num_ranks=3)) for r in range(3)]
    assert [len(one) for one in batches] == [1, 1, 1]  # of 14 examples 12; 2 are left
    assert len(EpochBatches(LENGTHS[:14], 4, seed=0, num_ranks=3)) == 1


def test_processes_take_packed_batches_in_turn() -> None:
    settings = {"max_tokens": 300, "packed": True}
    alone = [[index for _, index in batch] for batch in order(epoch=2, **settings)]
    steps = shares(**settings)
    assert list(chain(*steps)) == alone[: 3 * len(steps)]
    assert len(steps) == len(alone) // 3


def test_processes_go_on_together() -> None:
    for rank in range(3):
        batches = EpochBatches(LENGTHS, 4, seed=0, rank=rank, num_ranks=3)
        whole = list(batches)
        batches.go_on(0, 2)
        assert list(batches) == whole[2:]


@pytest.mark.parametrize("settings", [{}, {"max_tokens": 300, "packed": True}], ids=str)
def test_batches_of_a_step_are_joined(settings: dict[str, Any]) -> None:
    single = order(epoch=2, **settings)
    joined = order(epoch=2, joined=3, **settings)
    assert joined == [list(chain(*single[i : i + 3])) for i in range(0, len(single), 3)]
    assert len(joined) == len(EpochBatches(LENGTHS, 4, seed=0, joined=3, **settings))
    batches = EpochBatches(LENGTHS, 4, seed=0, joined=3, **settings)
    batches.set_epoch(2)
    batches.go_on(2, 2)
    assert list(batches) == joined[2:]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 9])
def test_what_all_need_once_is_shared_out_in_as_many_batches(num_ranks: int) -> None:
    batches = EpochBatches([5, 6, 7, 8, 9, 4, 3], 2, seed=1, shuffle=False)
    shares = [SharedOut(batches, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert {len(list(share)) for share in shares} == {len(share) for share in shares}
    assert len(shares[0]) == -(-4 // num_ranks)
    once = [batch for share in shares for i, batch in enumerate(share) if not share.is_repeated(i)]
    assert sorted(once) == list(batches)


def order_of(batches: EpochBatches) -> list[list[tuple[int, int]]]:
    return [sorted(batch) for batch in batches]


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 2}, {"seed": 1}, {"joined": 2}, {"lengths": LENGTHS[::-1]},
        {"lengths": LENGTHS[:-1]}, {"max_tokens": 4000}, {"num_ranks": 2},
    ],
)  # fmt: skip
def test_steps_tell_other_batches(other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"lengths": LENGTHS, "batch_size": 4, "seed": 0}
    one, two = EpochBatches(**usual), EpochBatches(**usual | other)
    assert order_of(one) != order_of(two)
    assert one.steps != two.steps


def test_steps_tell_packed_rows_from_padded_ones() -> None:
    packed, padded = (
        EpochBatches(LENGTHS, 4, seed=0, max_tokens=4000, packed=packed) for packed in (True, False)
    )
    assert order_of(packed) != order_of(padded)
    assert packed.steps != padded.steps


@pytest.mark.parametrize(
    ("two", "one"),
    [
        ({"batch_size": 2, "num_ranks": 2}, {"batch_size": 4}),
        ({"max_tokens": 4000, "num_ranks": 2}, {"max_tokens": 4000, "joined": 2}),
    ],
)
def test_steps_of_two_processes_may_be_those_of_one(
    two: dict[str, Any], one: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {"lengths": LENGTHS, "batch_size": 4, "seed": 0}
    shares = [EpochBatches(**usual | two, rank=rank) for rank in range(2)]
    alone = EpochBatches(**usual | one)
    assert {share.steps == alone.steps for share in shares} == {True}
    together = [sorted(a + b) for a, b in zip(*shares, strict=True)]
    assert together == order_of(alone)[: len(together)]


@pytest.mark.parametrize("joined", [1, 3])
@pytest.mark.parametrize("num_ranks", [2, 4, 8])  # of 70 examples 6 are left, too few for 8
def test_steps_of_any_number_of_processes_are_those_of_one(num_ranks: int, joined: int) -> None:
    def steps(num_ranks: int) -> list[set[int]]:
        size = 8 // num_ranks
        ranks = [
            EpochBatches(LENGTHS, size, seed=0, rank=rank, num_ranks=num_ranks, joined=joined)
            for rank in range(num_ranks)
        ]
        assert {str(rank.steps) for rank in ranks} == {str(ranks[0].steps)}
        for rank in ranks:
            rank.set_epoch(2)
        return [{i for _, i in chain(*step)} for step in zip(*ranks, strict=True)]

    alone, together = steps(1), steps(num_ranks)
    left_out = set(range(70)) - set().union(*together)
    assert len(left_out) == (6 if num_ranks == 8 else 0)
    assert together == [step - left_out for step in alone][: len(together)]
    assert left_out <= alone[-1]


def test_steps_tell_where_a_smaller_batch_comes() -> None:
    assert "short_batch" not in EpochBatches(LENGTHS, 7, seed=0).steps
    assert EpochBatches(LENGTHS, 8, seed=0).steps["short_batch"] == "last"
    assert len(order(epoch=3)[-1]) == 2
