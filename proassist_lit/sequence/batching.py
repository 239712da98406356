"""Order of training: a pure function of seed and epoch, so that any point of it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import chain

from torch.utils.data import Sampler

from proassist_lit.data.seeding import stable_rng
from proassist_lit.errors import ConfigError
from proassist_lit.sequence.packing import fill_batches, share_out, split_to

WINDOW = 64
"""Neighbours in the shuffled order that are shared out over batches together."""


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), in an order drawn from (seed, epoch).

    With a number of examples per batch, examples are shuffled, sorted by length within chunks of
    some batches (little padding), and the batches are shuffled again, but for a smaller one that is
    the last. With a number of tokens, windows of the shuffled order are shared out over batches
    that are as full as they can be.
    Every epoch has the same number of batches: Lightning asks for it once.

    Several processes take a step together. With a number of examples, they share out a batch that
    is as many times as large, so that all have about as many tokens; with a number of tokens, each
    takes a batch of its own. What is too little to give each something comes at the end, and is
    left out: the steps before it are those of any other number of processes.

    Args:
        lengths: tokens of every example.
        batch_size: examples per batch; the last batch of an epoch may be smaller.
        seed: seed of the run.
        shuffle: False keeps the order, epoch 0 for ever (validation).
        max_tokens: most tokens per batch, whatever ``batch_size``; None for no limit.
        packed: whether a batch is one row without padding; otherwise padding counts.
        rank: number of this process.
        num_ranks: processes that take a step together.
        joined: batches that make a step, given as one.

    Raises:
        ConfigError: an example has more than ``max_tokens``.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        max_tokens: int | None = None,
        packed: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
        joined: int = 1,
    ) -> None:
        self._lengths, self._batch_size = lengths, batch_size * num_ranks
        self._rank, self._num_ranks, self._joined = rank, num_ranks, joined
        self._seed, self._shuffle = seed, shuffle
        self._max_tokens, self._packed = max_tokens, packed
        self.epoch = 0
        self._consumed = (0, 0)  # epoch, batches of it that training has had
        if max_tokens is not None and max(lengths, default=0) > max_tokens:
            raise ConfigError(
                f"data.max_tokens is {max_tokens}, but the longest conversation has {max(lengths)} "
                f"tokens; set data.max_tokens to at least {max(lengths)}, or lower "
                "data.max_seq_len, which splits conversations."
            )

    def go_on(self, epoch: int, num_batches: int) -> None:
        """Begin in ``epoch``, and leave out its first ``num_batches``: training has had them.

        Loader processes ask for batches before Lightning says which epoch it is.
        """
        self.epoch = epoch
        self._consumed = (epoch, num_batches)

    @cached_property
    def steps(self) -> dict[str, int | str]:
        """What decides which conversations the steps of an epoch take: alike in all processes."""
        digest = blake2b(repr(list(self._lengths)).encode(), digest_size=4).hexdigest()
        steps: dict[str, int | str] = {
            "seed": self._seed, "conversations": len(self._lengths), "lengths": digest,
        }  # fmt: skip
        if self._max_tokens is None:
            steps |= {"batch_size": self._batch_size, "batches": self._joined}
            # Not always there: checkpoints of before it came last may go on where there is none.
            return steps | ({"short_batch": "last"} if self._num_short else {})
        return steps | {
            "max_tokens": self._max_tokens, "packed": self._packed,
            "batches": self._joined * self._num_ranks,
        }  # fmt: skip

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning looks for ``set_epoch`` on a batch sampler's ``sampler`` only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration. Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self._num_of_rank // self._joined)

    @property
    def _num_of_rank(self) -> int:
        """Batches of each process, before they are joined."""
        if self._max_tokens is not None:
            return self._num_filled // self._num_ranks
        return len(self._lengths) // self._batch_size + (self._num_short >= self._num_ranks)

    @property
    def _num_short(self) -> int:
        """Examples of the one batch that has fewer than the others; 0 where none has."""
        return len(self._lengths) % self._batch_size if self._max_tokens is None else 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch if self._shuffle else 0
        rng = stable_rng("batches", self._seed, epoch)
        order = list(range(len(self._lengths)))
        if self._shuffle:
            rng.shuffle(order)
        batches = self._counted(order) if self._max_tokens is None else self._filled(order)
        if self._shuffle:
            short = [batches.pop()] if self._num_short else []
            rng.shuffle(batches)
            batches += short
        if self._num_ranks > 1:
            batches = self._mine(batches)
        if self._joined > 1:
            starts = range(0, len(batches), self._joined)
            batches = [list(chain(*batches[i : i + self._joined])) for i in starts]
        consumed = self._consumed[1] if self._consumed[0] == self.epoch else 0
        for batch in batches[consumed:]:
            yield [(epoch, index) for index in batch]

    def _mine(self, batches: list[list[int]]) -> list[list[int]]:
        """What of ``batches`` this process takes; as many of all processes."""
        if self._max_tokens is not None:
            return batches[self._rank :: self._num_ranks][: self._num_of_rank]
        shares = (share_out(self._lengths, batch, self._num_ranks) for batch in batches)
        return [share[self._rank] for share in shares if all(share)]

    def _counted(self, order: list[int]) -> list[list[int]]:
        """Batches of ``batch_size`` examples of similar length."""
        size = self._batch_size
        if self._shuffle:
            chunk = size * 16
            order = [
                i
                for start in range(0, len(order), chunk)
                for i in sorted(order[start : start + chunk], key=self._lengths.__getitem__)
            ]
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _filled(self, order: list[int]) -> list[list[int]]:
        """Batches of at most ``max_tokens``, as many as in every epoch."""
        batches = self._fill(order)
        if len(batches) > self._num_filled:  # an unlucky order: those of the first epoch, then
            batches = self._fill(self._first_order)
        return split_to(batches, self._num_filled)

    def _fill(self, order: list[int]) -> list[list[int]]:
        assert self._max_tokens is not None
        return [
            batch
            for start in range(0, len(order), WINDOW)
            for batch in fill_batches(
                self._lengths, order[start : start + WINDOW],
                max_tokens=self._max_tokens, packed=self._packed,
            )
        ]  # fmt: skip

    @property
    def _first_order(self) -> list[int]:
        order = list(range(len(self._lengths)))
        if self._shuffle:
            stable_rng("batches", self._seed, 0).shuffle(order)
        return order

    @cached_property
    def _num_filled(self) -> int:
        """Batches of every epoch: those of the first, and some to spare.

        How well a window fills its batches differs from order to order, by about half a batch.
        """
        num_windows = -(-len(self._lengths) // WINDOW)
        spare = math.isqrt(num_windows) if self._shuffle and num_windows > 1 else 0
        return min(len(self._fill(self._first_order)) + spare, len(self._lengths))


class SharedOut(Sampler[list[tuple[int, int]]]):
    """The batches of one process, where several share out those that all of them need once.

    All get as many: where some are missing, batches come a second time (``is_repeated``).

    Args:
        batches: of all processes.
        rank: number of this process.
        num_ranks: processes.
    """

    def __init__(self, batches: EpochBatches, *, rank: int, num_ranks: int) -> None:
        self._batches, self._rank, self._num_ranks = batches, rank, num_ranks

    def __len__(self) -> int:
        return -(-len(self._batches) // self._num_ranks)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = list(self._batches)
        for place in range(self._rank, len(self) * self._num_ranks, self._num_ranks):
            yield batches[place % len(batches)]

    def is_repeated(self, batch_idx: int) -> bool:
        """Whether the batch of that number is one that another process has as well."""
        return batch_idx * self._num_ranks + self._rank >= len(self._batches)
