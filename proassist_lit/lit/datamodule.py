"""Batches for the Trainer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from proassist_lit.errors import CheckpointError
from proassist_lit.sequence.batching import EpochBatches, SharedOut
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch, Example


class ConversationDataModule(L.LightningDataModule):
    """Loaders over built example sets.

    Args:
        examples: of train, and of val, where every decision counts, whatever training samples.
        collate: makes a batch of examples, for the same splits.
        batches: order of a split: shuffled or not, of the lengths of its examples.
        num_workers: loader processes.
        seed: seed of the order.
    """

    def __init__(
        self,
        examples: Mapping[str, ExampleSet],
        collate: Mapping[str, Callable[[Sequence[Example]], Batch]],
        *,
        batches: Callable[..., EpochBatches],
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._examples, self._collate = examples, collate
        self._batches, self._num_workers, self._seed = batches, num_workers, seed
        self._consumed = (0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Epoch under way, how many of its batches are in the weights, and what those are."""
        trainer = self.trainer
        assert trainer is not None
        loop = trainer.fit_loop
        completed = loop.epoch_loop.batch_progress.current.completed
        epoch = max(loop.epoch_progress.current.ready - 1, 0)  # a search saves before the first
        order = self._training_order
        return {
            "epoch": epoch, "num_batches": completed, "of": len(order), "steps": order.steps,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            CheckpointError: it stands within an epoch whose steps take other conversations here, or
                does not say which those are.
        """
        if missing := {"of", "steps"} - state_dict.keys():
            raise CheckpointError(
                f"resume: the checkpoint does not say {' and '.join(sorted(missing))} of the epoch "
                "under way, so it was written by an earlier version; begin another run with its "
                "weights (proassist-lit export, then model.init_from)."
            )
        epoch, num_batches = state_dict["epoch"], state_dict["num_batches"]
        order = self._training_order
        before = state_dict["steps"]
        if before != order.steps:
            if 0 < num_batches < state_dict["of"]:
                raise CheckpointError(
                    f"resume: the checkpoint was written in the middle of an epoch with steps of "
                    f"{_in_words(before)}; here they would be of {_in_words(order.steps)}, and "
                    "some conversations would be left out, others taken twice. Give "
                    "data.batch_size (times the processes), data.max_tokens, data.packing, "
                    "trainer.accumulate, seed, the data and the version of proassist_lit as they "
                    "were, or begin another run with its weights (proassist-lit export, then "
                    "model.init_from)."
                )
            num_batches = len(order) if num_batches else 0
        self._consumed = (epoch, num_batches)

    @cached_property
    def _training_order(self) -> EpochBatches:
        """Asked for its length and steps at every checkpoint; both are worked out once."""
        assert self.trainer is not None
        return self._order("train", shuffle=True, num_ranks=self.trainer.world_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch, by seed and epoch alone."""
        return self._loader("train", shuffle=True)

    def batches_per_epoch(self, num_ranks: int) -> int:
        """Batches that each of so many processes trains on in an epoch."""
        return len(self._order("train", shuffle=True, rank=0, num_ranks=num_ranks))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Always the same, in order, shared out over all processes."""
        return self._loader("val", shuffle=False)

    def train_records(self, epoch: int, batch_idx: int) -> list[str]:
        """Names of the conversations in a batch of training, each with its file and line."""
        trainer = self.trainer
        assert trainer is not None
        batches = copy.copy(trainer.train_dataloader.batch_sampler)  # type: ignore[union-attr]
        batches.go_on(epoch, 0)  # the whole epoch, though training was resumed in the middle of it
        batch = next(itertools.islice(batches, batch_idx, None))
        return [self._examples["train"].name(index) for _, index in batch]

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Batch]:
        examples = self._examples[split]
        trainer = self.trainer
        rank, num_ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        batches: EpochBatches | SharedOut
        if shuffle:
            batches = self._order(split, shuffle=True, rank=rank, num_ranks=num_ranks)
            batches.go_on(*self._consumed)
        else:
            in_order = self._order(split, shuffle=False, joined=1)
            batches = SharedOut(in_order, rank=rank, num_ranks=num_ranks)
        return DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self._collate[split],
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            # Of its own, so that making an iterator takes nothing from the generator that training
            # draws from: a run that is resumed makes one more.
            generator=torch.Generator().manual_seed(self._seed),
            pin_memory=torch.cuda.is_available(),
        )

    def _order(self, split: str, **kwargs: Any) -> EpochBatches:
        return self._batches(self._examples[split].lengths, seed=self._seed, **kwargs)


def _in_words(steps: Mapping[str, int | str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in steps.items())
