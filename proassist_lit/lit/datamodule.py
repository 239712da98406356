"""Batches for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
from torch.utils.data import DataLoader

from proassist_lit.sequence.batching import EpochBatches
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch, Example


class ConversationDataModule(L.LightningDataModule):
    """Loaders over built example sets.

    Args:
        train: examples of train.
        val: examples of val; every frame decides, whatever the objective samples in training.
        collate: makes a batch of examples.
        batch_size: conversations per batch.
        num_workers: loader processes.
        seed: seed of the order.
    """

    def __init__(
        self,
        train: ExampleSet,
        val: ExampleSet,
        collate: Callable[[Sequence[Example]], Batch],
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._collate = collate
        self._train, self._val = train, val
        self._batch_size, self._num_workers, self._seed = batch_size, num_workers, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch, by seed and epoch alone."""
        return self._loader(self._train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Always the same, in order."""
        return self._loader(self._val, shuffle=False)

    def _loader(self, examples: ExampleSet, *, shuffle: bool) -> DataLoader[Batch]:
        batches = EpochBatches(examples.lengths, self._batch_size, seed=self._seed, shuffle=shuffle)
        return DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self._collate,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )
