from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from proassist_lit.sequence.batching import EpochBatches, SharedOut
from tests.sequence.batches import LENGTHS, order, order_of


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


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 9])
def test_what_all_need_once_is_shared_out_in_as_many_batches(num_ranks: int) -> None:
    batches = EpochBatches([5, 6, 7, 8, 9, 4, 3], 2, seed=1, shuffle=False)
    shares = [SharedOut(batches, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert {len(list(share)) for share in shares} == {len(share) for share in shares}
    assert len(shares[0]) == -(-4 // num_ranks)
    once = [batch for share in shares for i, batch in enumerate(share) if not share.is_repeated(i)]
    assert sorted(once) == list(batches)


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
