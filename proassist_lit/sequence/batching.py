"""Order of training: a pure function of seed and epoch, so that any point of it can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from proassist_lit.data.seeding import stable_rng


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), of similar length, in an order drawn from (seed, epoch).

    Examples are shuffled, sorted by length within chunks of some batches (little padding), and the
    batches are shuffled again.

    Args:
        lengths: tokens of every example.
        batch_size: examples per batch; the last batch of an epoch may be smaller.
        seed: seed of the run.
        shuffle: False keeps the order, epoch 0 for ever (validation).
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int, shuffle: bool = True
    ) -> None:
        self._lengths, self._batch_size = lengths, batch_size
        self._seed, self._shuffle = seed, shuffle
        self.epoch = 0
        self._consumed = (-1, 0)  # epoch, batches of it that training has had

    def go_on(self, epoch: int, num_batches: int) -> None:
        """Leave out the first ``num_batches`` of ``epoch``: training has had them."""
        self._consumed = (epoch, num_batches)

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning looks for ``set_epoch`` on a batch sampler's ``sampler`` only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration. Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self._batch_size
        order = list(range(len(self._lengths)))
        if self._shuffle:
            rng = stable_rng("batches", self._seed, self.epoch)
            rng.shuffle(order)
            chunk = size * 16
            order = [
                i
                for start in range(0, len(order), chunk)
                for i in sorted(order[start : start + chunk], key=self._lengths.__getitem__)
            ]
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if self._shuffle:
            rng.shuffle(batches)
        epoch = self.epoch if self._shuffle else 0
        consumed = self._consumed[1] if self._consumed[0] == self.epoch else 0
        for batch in batches[consumed:]:
            yield [(epoch, index) for index in batch]
