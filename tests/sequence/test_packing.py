from __future__ import annotations

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.batching import WINDOW, EpochBatches
from proassist_lit.sequence.packing import fill_batches, split_to

LENGTHS = [20 + (i * 37) % 101 for i in range(5 * WINDOW + 3)]


def batches(epoch: int = 0, *, packed: bool = True, max_tokens: int = 300, **options):
    made = EpochBatches(LENGTHS, 4, seed=1, max_tokens=max_tokens, packed=packed, **options)
    made.set_epoch(epoch)
    return made


def cost(batch: list[tuple[int, int]], *, packed: bool) -> int:
    rows = [LENGTHS[index] for _, index in batch]
    return sum(rows) if packed else max(rows) * len(rows)


def test_the_longest_come_first_and_go_where_they_leave_the_least_room() -> None:
    lengths = [4, 8, 3, 5, 2, 6]

    # 8; 6 begins another; 5 another; 4 joins 6 (leaving 0, not 1); 3 joins 5; 2 joins 8 or 5
    assert fill_batches(lengths, range(6), max_tokens=10, packed=True) == [[1, 4], [5, 0], [3, 2]]


def test_padded_neighbours_in_length_share_a_batch_and_padding_counts() -> None:
    lengths = [4, 8, 3, 5, 2, 6]

    found = fill_batches(lengths, range(6), max_tokens=12, packed=False)

    assert found == [[1], [5, 3], [0, 2, 4]]


def test_splitting_makes_so_many_and_loses_none() -> None:
    assert split_to([[1, 2, 3, 4, 5], [6]], 3) == [[1, 3, 5], [6], [2, 4]]
    assert split_to([[1], [2]], 2) == [[1], [2]]


@pytest.mark.parametrize("packed", [True, False])
def test_every_epoch_has_all_examples_once_in_the_same_number_of_batches(packed: bool) -> None:
    number = len(batches(packed=packed))
    for epoch in range(6):
        made = list(batches(epoch, packed=packed))
        assert len(made) == number
        assert sorted(i for batch in made for _, i in batch) == list(range(len(LENGTHS)))
        assert {e for batch in made for e, _ in batch} == {epoch}
        assert max(cost(batch, packed=packed) for batch in made) <= 300


def test_an_unlucky_order_takes_the_batches_of_the_first_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = batches(3)
    first = sorted(sorted(i for _, i in batch) for batch in batches(0))
    monkeypatch.setattr(made, "_num_filled", len(made._fill(made._first_order)))
    monkeypatch.setattr(
        made, "_fill", lambda order, fill=made._fill: (
            fill(order) if order == made._first_order else [[i] for i in order]
        ),
    )  # fmt: skip

    assert len(list(made)) == made._num_filled
    unsplit = [batch for batch in first if len(batch) > 1]
    kept = sorted(sorted(i for _, i in batch) for batch in made)
    assert sum(batch in kept for batch in unsplit) > 0.9 * len(unsplit)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert list(batches(2)) == list(batches(2))
    assert list(batches(2)) != list(batches(3))
    assert {frozenset(batch) for batch in batches(2)} != {frozenset(batch) for batch in batches(3)}
    again = batches(5)
    again.set_epoch(2)
    assert list(again) == list(batches(2))


def test_packed_batches_are_nearly_full() -> None:
    made = list(batches())
    share = sum(LENGTHS) / (300 * len(made))

    assert share > 0.9


def test_without_shuffling_windows_stay_in_order() -> None:
    made = list(batches(4, shuffle=False))

    assert made == list(batches(0, shuffle=False))
    starts = [min(i for _, i in batch) // WINDOW for batch in made]
    assert starts == sorted(starts)
    assert len(made) == len(batches(shuffle=False))


@pytest.mark.parametrize("packed", [True, False])
def test_a_budget_below_the_longest_conversation_is_refused(packed: bool) -> None:
    with pytest.raises(
        ConfigError, match=r"max_tokens is 119, .* longest conversation has 120 tokens; set data"
    ):
        batches(max_tokens=119, packed=packed)
    assert len(batches(max_tokens=120, packed=packed)) > 0
