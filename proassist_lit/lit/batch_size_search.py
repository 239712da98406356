"""Looks for the largest batch before training, by Lightning's search over the longest examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import lightning as L
import torch
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader

from proassist_lit.build import Core, build_collate, build_examples
from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError, TrainingError
from proassist_lit.lit.build import build_module, plugins_of
from proassist_lit.lit.interrupt import interruptible
from proassist_lit.lit.search import Search
from proassist_lit.lit.weight_average import room_for_average
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Batch, Example

SEARCH = Search("find_batch_size", "data.batch_size", "0")

STEPS_PER_TRIAL = 3
"""Optimizer steps of a trial: from the second on, the optimizer's state is in memory as well."""


class LongestExamples(L.LightningDataModule):
    """One batch over and over: the longest examples, as the worst that training can meet.

    Args:
        examples: of train.
        collate: makes a batch of them.
        most: examples of the largest batch.
    """

    def __init__(
        self, examples: ExampleSet, collate: Callable[[Sequence[Example]], Batch], *, most: int
    ) -> None:
        super().__init__()
        self.batch_size = 1  # Lightning sets it
        self._collate = collate
        longest = sorted(range(len(examples)), key=lambda i: -examples.lengths[i])[:most]
        self._examples = [examples[0, index] for index in longest]

    def train_dataloader(self) -> DataLoader[Batch]:
        """As many batches as a trial takes."""
        size = min(self.batch_size, len(self._examples))
        return DataLoader(
            self._examples,  # type: ignore[arg-type]
            batch_sampler=[list(range(size))] * STEPS_PER_TRIAL,
            collate_fn=self._collate,
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """None: validation keeps nothing for a gradient."""
        return []


def with_found_batch_size(
    config: RunConfig, core: Core, run: RunDirectory, *, resumes: bool
) -> RunConfig:
    """``config`` with the largest batch that goes through, at most ``trainer.find_batch_size``.

    Model and random numbers are left as they were. What was found is kept in the run directory: a
    run that goes on takes it from there.

    Args:
        config: of the run.
        core: its objects; the model trains for some steps and is then put back.
        run: where the number is kept.
        resumes: whether training goes on from a checkpoint.

    Raises:
        ConfigError: there is no limit to look for, or what was found once is not there any more.
        TrainingError: not even one example goes through.
    """
    if resumes:
        found = int(SEARCH.kept(run.batch_size))
    else:
        check_has_limit(config)
        found = _search(config, core, run)
        SEARCH.keep(run.batch_size, found)
    return replace(config, data=replace(config.data, batch_size=found))


def check_has_limit(config: RunConfig) -> None:
    """See that there is something to look for.

    Raises:
        ConfigError: several devices, a CPU, or a memory that does not hang on the batch.
    """
    trainer = config.trainer
    SEARCH.check_one_device(trainer)
    if trainer.micro_tokens is not None or config.data.max_tokens is not None:
        name = "trainer.micro_tokens" if trainer.micro_tokens is not None else "data.max_tokens"
        raise ConfigError(
            f"trainer.find_batch_size looks for the conversations that fit in memory, but {name} "
            "limits what goes through at a time by tokens; leave one of them out."
        )
    if trainer.accelerator == "cpu" or not torch.cuda.is_available():
        raise ConfigError(
            "trainer.find_batch_size needs a GPU, whose memory says when a batch is too large; a "
            "CPU would swap or be killed. Set data.batch_size yourself."
        )


def _search(config: RunConfig, core: Core, run: RunDirectory) -> int:
    """Train with more and more of the longest examples; put everything back."""
    trainer = config.trainer
    one = replace(config, trainer=replace(trainer, accumulate=1))
    examples = build_examples(one, core, "train")
    most = min(trainer.find_batch_size, len(examples))
    longest = LongestExamples(examples, build_collate(one, core, "train"), most=most)
    trained = {name: p for name, p in core.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().to("cpu", copy=True) for name, p in trained.items()}
    module = build_module(one, core, STEPS_PER_TRIAL)

    def trial() -> L.Trainer:
        return L.Trainer(
            accelerator=trainer.accelerator, devices=1, **plugins_of(trainer),
            max_steps=STEPS_PER_TRIAL, max_epochs=-1, use_distributed_sampler=False,
            gradient_clip_val=trainer.gradient_clip or None, logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
            default_root_dir=run.path,
        )  # fmt: skip

    # Lightning's search runs no callbacks: the copy that the average holds beside a step is taken
    # here. At validation there is a second one, in the room that the gradients have left.
    device = trial().strategy.root_device
    room = room_for_average(trained.values(), device) if trainer.ema_decay else []
    if trainer.accumulate > 1:  # gradients of the batches before lie beside a forward
        room += [torch.empty_like(p, device=device) for p in trained.values()]
    with isolate_rng(), interruptible():
        found = Tuner(trial()).scale_batch_size(
            module, datamodule=longest, mode="binsearch", steps_per_trial=STEPS_PER_TRIAL,
            init_val=1, margin=0.0, max_val=2 * most + 2,  # which it would not try
        )  # fmt: skip
        if found == 1:  # also what Lightning says where one was too many
            longest.batch_size = 1
            try:
                trial().fit(module, datamodule=longest)
            except torch.cuda.OutOfMemoryError as error:
                raise TrainingError(
                    f"trainer.find_batch_size: the longest conversation alone, of "
                    f"{max(examples.lengths)} tokens, is too large for the device; lower "
                    "data.max_seq_len, or set trainer.gradient_checkpointing=full."
                ) from error
    del room
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(before[name])
            parameter.grad = None
    assert found is not None
    return min(found, most)
