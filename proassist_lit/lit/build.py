"""Builds module, data module and Trainer from the configuration, in sight."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any

import lightning as L

from proassist_lit.build import Core, build_collate, build_examples, packs
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError
from proassist_lit.lit.best_checkpoints import BestCheckpoint, TopCheckpoints
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.checkpoint_io import AtomicCheckpointIO
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.lit.devices import check_processes, refusals_of_lightning
from proassist_lit.lit.last_checkpoint import LastCheckpoint
from proassist_lit.lit.logs import Logs
from proassist_lit.lit.loss_guard import LossGuard
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.patience import Patience
from proassist_lit.lit.precision import DoubleWeights, HalfWeights
from proassist_lit.lit.profiling import build_profiler
from proassist_lit.lit.progress_bar import EpochBar
from proassist_lit.lit.random_state import RandomState
from proassist_lit.lit.settings_checks import (
    check_cut,
    check_positions,
    check_stream_length,
    check_summaries,
    check_taught_summaries,
)
from proassist_lit.lit.strategy import build_environment, build_strategy
from proassist_lit.lit.throughput import ThroughputLogging
from proassist_lit.lit.weight_average import WeightAverage
from proassist_lit.model.training_layers import prepare_layers
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sequence.batching import EpochBatches
from proassist_lit.trainer_config import TrainerConfig

_NEVER = 2**62
"""Steps between validations that none ever reaches."""


def build_datamodule(config: RunConfig, core: Core) -> ConversationDataModule:
    """Batches of train and val; settings that do not fit together, or the backbone, are told of."""
    if config.data.packing and not core.model.can_pack:
        warnings.warn(
            f"data.packing: model.backbone={config.model.backbone} is a "
            f"{core.model.lm.config.model_type}, which is not known to keep the conversations of a "
            "packed row apart; batches are padded instead. Set data.packing=false to hear no more "
            "of it.",
            stacklevel=2,
        )
    examples = {split: build_examples(config, core, split) for split in ("train", "val")}
    if len(examples["train"]) > len(core.data["train"]):
        check_stream_length(config)
        check_summaries(config)
    check_taught_summaries(config, core, examples["train"])
    check_cut(config, examples["train"])
    check_positions(config, core.model)
    return ConversationDataModule(
        examples,
        {split: build_collate(config, core, split) for split in ("train", "val")},
        batches=partial(
            EpochBatches,
            batch_size=config.data.batch_size,
            joined=config.trainer.accumulate,
            max_tokens=config.data.max_tokens,
            packed=packs(config, core),
        ),
        num_workers=config.data.num_workers,
        seed=config.seed,
    )


def build_module(config: RunConfig, core: Core, num_batches: int) -> AssistantModule:
    """The Lightning module; ``num_batches`` per epoch give the length of the schedule."""
    limits = [config.trainer.max_steps] if config.trainer.max_steps >= 0 else []
    if config.trainer.max_epochs >= 0:
        limits.append(config.trainer.max_epochs * num_batches)
    trainer, data = config.trainer, config.data
    micro_tokens, micro_conversations = trainer.micro_tokens, None
    if trainer.accumulate > 1 and data.max_tokens is None:
        micro_conversations = data.batch_size
    elif trainer.accumulate > 1:
        micro_tokens = micro_tokens or data.max_tokens
    prepare_layers(core.model.lm, trainer.gradient_checkpointing, compiles=trainer.compile)
    return AssistantModule(
        core.model,
        config.objective,
        trainer.optimizer,
        num_steps=min(limits),
        fused=trainer.fused,
        micro_tokens=micro_tokens,
        micro_conversations=micro_conversations,
    )


def validate_at_the_end(trainer: L.Trainer, num_steps: int) -> None:
    """Let a run of ``num_steps`` validate once where it is too short to validate in between.

    Without a validation there is no best state, no curve of val and nothing to prune by.
    """
    if trainer.val_check_interval != _NEVER:
        trainer.val_check_interval = min(trainer.val_check_interval, num_steps)


@refusals_of_lightning()
def build_trainer(
    config: RunConfig, run: RunDirectory, evaluation: StreamingEvaluation, logs: Logs
) -> L.Trainer:
    """Trainer with checkpoints, loggers, progress bar and streaming evaluation.

    Raises:
        ConfigError: Lightning refuses the settings, or other processes were started than they mean.
    """
    trainer = config.trainer
    built = L.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices if trainer.devices == "auto" else int(trainer.devices),
        num_nodes=trainer.num_nodes,
        strategy=build_strategy(trainer),
        **plugins_of(trainer),
        max_steps=trainer.max_steps,
        max_epochs=trainer.max_epochs,
        val_check_interval=trainer.val_every_steps or _NEVER,
        check_val_every_n_epoch=None,  # count steps across epochs
        num_sanity_val_steps=0,
        log_every_n_steps=trainer.log_every_steps,
        gradient_clip_val=trainer.gradient_clip or None,
        use_distributed_sampler=False,  # the order is a function of seed and epoch already
        profiler=build_profiler(trainer.profiler, run),
        logger=list(logs.loggers),
        callbacks=[
            *build_checkpointing(config, run),
            ThroughputLogging(
                num_tokens_per_img=config.data.num_tokens_per_img,
                peak=trainer.peak_tflops,
                every_steps=trainer.log_every_steps,
            ),
            LossGuard(
                run,
                spike_factor=trainer.spike_factor,
                read_every_steps=trainer.log_every_steps,
                warmup_steps=trainer.optimizer.warmup_steps,
            ),
            EpochBar(leave=True, read_every_steps=trainer.log_every_steps),
            logs.identity,
            RandomState(),
            evaluation,
            *([WeightAverage(trainer.ema_decay)] if trainer.ema_decay else []),
            *([Patience(trainer.patience)] if trainer.patience else []),
        ],
        enable_model_summary=False,
        default_root_dir=run.path,
    )
    check_processes(built)
    return built


def plugins_of(trainer: TrainerConfig) -> dict[str, Any]:
    """What every Trainer is told, one that searches too: the processes, the files, the numbers.

    Lightning's searches write a checkpoint as well, to put the model back.
    """
    name, others = trainer.precision, [*build_environment(), AtomicCheckpointIO()]
    if trainer.rounds_weights:
        return {"plugins": [*others, HalfWeights(name)]}  # type: ignore[arg-type]
    if name in ("64-true", "64"):
        return {"plugins": [*others, DoubleWeights()]}
    return {"plugins": others, "precision": name}


def build_checkpointing(config: RunConfig, run: RunDirectory) -> list[L.Callback]:
    """``best.ckpt`` by the loss on val and the next best; ``last.ckpt`` to go on from."""
    trainer = config.trainer
    kept: list[L.Callback] = [BestCheckpoint(run)]
    if trainer.save_top_k > 1:
        kept.append(TopCheckpoints(run, "step-{step}", trainer.save_top_k))
    last = LastCheckpoint(run, every_steps=trainer.save_every_steps)
    return [*kept, last]


def find_resume(config: RunConfig, run: RunDirectory) -> str | None:
    """Checkpoint to go on from, or None to begin.

    Raises:
        CheckpointError: ``resume`` names a file that does not exist.
        ConfigError: another run lies in the directory.
    """
    run.check_begins(config.resume)
    if config.resume == "none":
        return None
    if config.resume == "auto":
        return str(run.last_checkpoint) if run.last_checkpoint.exists() else None
    if not os.path.isfile(config.resume):
        raise CheckpointError(
            f"resume={config.resume}: there is no such checkpoint; give none, auto, or the path of "
            "a .ckpt file."
        )
    return config.resume
