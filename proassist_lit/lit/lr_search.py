"""Looks for a learning rate before training, by Lightning's range test."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
from lightning.pytorch.tuner.tuning import Tuner
from matplotlib.figure import Figure

from proassist_lit.build import Core
from proassist_lit.config import RunConfig
from proassist_lit.errors import TrainingError
from proassist_lit.lit.build import build_module, plugins_of
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.lit.interrupt import interruptible
from proassist_lit.lit.search import Search
from proassist_lit.run_directory import RunDirectory

SEARCH = Search("find_lr", "trainer.optimizer.lr", "false")

NUM_STEPS = 100
"""Steps over which the rate rises from far too small to far too large."""


def with_found_lr(
    config: RunConfig,
    core: Core,
    datamodule: ConversationDataModule,
    run: RunDirectory,
    *,
    resumes: bool,
) -> RunConfig:
    """``config`` with the rate at which the loss falls fastest; the curve is ``lr_search.png``.

    The model is left as it was, and so is the order of the data. A rate that a few steps from the
    beginning suggest is a hint, no more. It is kept in the run directory: a run that goes on takes
    it from there.

    Args:
        config: of the run.
        core: its objects; the model trains for some steps and is then put back.
        datamodule: its batches.
        run: where the curve is drawn, and the rate kept.
        resumes: whether training goes on from a checkpoint.

    Raises:
        ConfigError: the run is to train on several devices, or what was found once is not there
            any more.
        TrainingError: the losses suggest no rate.
    """
    if resumes:
        lr = SEARCH.kept(run.learning_rate)
    else:
        lr = _search(config, core, datamodule, run)
        SEARCH.keep(run.learning_rate, lr)
    optimizer = replace(config.trainer.optimizer, lr=lr)
    return replace(config, trainer=replace(config.trainer, optimizer=optimizer))


def _search(
    config: RunConfig, core: Core, datamodule: ConversationDataModule, run: RunDirectory
) -> float:
    trainer = config.trainer
    SEARCH.check_one_device(trainer)
    searcher = L.Trainer(
        accelerator=trainer.accelerator, devices=1, **plugins_of(trainer),
        max_steps=NUM_STEPS, max_epochs=-1, check_val_every_n_epoch=NUM_STEPS + 1,
        gradient_clip_val=trainer.gradient_clip or None, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_model_summary=False,
        default_root_dir=run.path,
    )  # fmt: skip
    module = build_module(config, core, len(datamodule.train_dataloader()))
    with interruptible():
        finder = Tuner(searcher).lr_find(
            module, datamodule=datamodule, min_lr=1e-7, num_training=NUM_STEPS, update_attr=False
        )
    L.seed_everything(config.seed, workers=True, verbose=False)
    lr = finder.suggestion() if finder is not None else None
    if finder is None or lr is None:
        raise TrainingError(
            "trainer.find_lr: too few losses to suggest a learning rate; set "
            "trainer.optimizer.lr yourself."
        )
    figure = Figure(figsize=(7, 4), layout="constrained")
    finder.plot(suggest=True, ax=figure.add_subplot())
    figure.savefig(run.path / "lr_search.png")
    return float(lr)
