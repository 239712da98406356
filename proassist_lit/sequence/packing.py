"""Which conversations share a batch, when its tokens are what is limited."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def fill_batches(
    lengths: Sequence[int], order: Sequence[int], *, max_tokens: int, packed: bool
) -> list[list[int]]:
    """Share ``order`` out over batches of at most ``max_tokens``, the longest first.

    Packed, each goes where it leaves the least room (best fit, decreasing): the batches are nearly
    full. Padded, neighbours in length go together, and padding counts.

    Args:
        lengths: tokens of every example, each at most ``max_tokens``.
        order: examples to share out; those of one length keep it.
        max_tokens: most tokens of a batch.
        packed: whether a batch is one row without padding.

    Returns:
        Batches of examples; every one of ``order`` is in one of them.

    Source: best-fit-decreasing bin packing; at most 11/9 of the fewest batches, and one
    (Johnson et al., 1974).
    """
    longest_first = sorted(order, key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    if not packed:
        for index in longest_first:
            if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches
    room: list[tuple[int, int]] = []  # tokens left, batch; ascending
    for index in longest_first:
        place = bisect_left(room, (lengths[index], -1))
        if place == len(room):
            left, number = max_tokens, len(batches)
            batches.append([])
        else:
            left, number = room.pop(place)
        batches[number].append(index)
        insort(room, (left - lengths[index], number))
    return batches


def split_to(batches: list[list[int]], number: int) -> list[list[int]]:
    """Halve the batches that have the most examples until there are ``number`` of them."""
    batches = list(batches)
    while len(batches) < number:
        most = max(range(len(batches)), key=lambda i: len(batches[i]))
        whole = batches[most]
        batches[most] = whole[::2]
        batches.append(whole[1::2])
    return batches


def share_out(lengths: Sequence[int], batch: Sequence[int], num_ranks: int) -> list[list[int]]:
    """A batch in shares of about as many tokens, and of as many examples but for one.

    Args:
        lengths: tokens of every example.
        batch: indices of some.
        num_ranks: number of shares, of which some are empty where there are fewer examples.
    """
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    tokens = [0] * num_ranks
    for number, index in enumerate(sorted(batch, key=lambda i: (-lengths[i], i))):
        most = number // num_ranks  # a share has its next example when every share has this one
        free = [rank for rank in range(num_ranks) if len(shares[rank]) == most]
        rank = min(free, key=lambda r: (tokens[r], r))
        shares[rank].append(index)
        tokens[rank] += lengths[index]
    return shares
