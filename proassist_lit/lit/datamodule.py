"""Batches for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import lightning as L
from torch.utils.data import DataLoader

from proassist_lit.sequence.batching import EpochBatches
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch, Example


class ConversationDataModule(L.LightningDataModule):
    """Loaders over built example sets.

    Args:
        examples: of train, and of val, where every frame decides whatever training samples.
        collate: makes a batch of examples, for the same splits.
        batch_size: conversations per batch.
        num_workers: loader processes.
        seed: seed of the order.
    """

    def __init__(
        self,
        examples: Mapping[str, ExampleSet],
        collate: Mapping[str, Callable[[Sequence[Example]], Batch]],
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._examples, self._collate = examples, collate
        self._batch_size, self._num_workers, self._seed = batch_size, num_workers, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch, by seed and epoch alone."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Always the same, in order."""
        return self._loader("val", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Batch]:
        examples = self._examples[split]
        batches = EpochBatches(examples.lengths, self._batch_size, seed=self._seed, shuffle=shuffle)
        return DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self._collate[split],
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )
