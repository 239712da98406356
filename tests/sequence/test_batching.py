from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from proassist_lit.sequence.batching import EpochBatches
from tests.sequence.batches import LENGTHS, order, order_of


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


def test_steps_tell_where_a_smaller_batch_comes() -> None:
    assert "short_batch" not in EpochBatches(LENGTHS, 7, seed=0).steps
    assert EpochBatches(LENGTHS, 8, seed=0).steps["short_batch"] == "last"
    assert len(order(epoch=3)[-1]) == 2
