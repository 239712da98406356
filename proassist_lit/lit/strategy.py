"""How several devices train one model, in Lightning's terms."""

from __future__ import annotations

import atexit
import os
import warnings
from datetime import timedelta

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.strategies import DDPStrategy, Strategy

from proassist_lit.errors import ConfigError
from proassist_lit.lit.sharded_strategy import ShardedStrategy
from proassist_lit.rendezvous import Rendezvous
from proassist_lit.sweep.launcher import is_multi_process
from proassist_lit.trainer_config import Parallel, TrainerConfig

_CPU_AND_GPU = "cpu:gloo,cuda:nccl"
"""Backends by device. NCCL alone, Lightning's choice on GPUs, carries no tensors of the CPU, where
metrics count."""

PATIENCE = timedelta(hours=4)
"""How long a process waits for the others. In an evaluation they meet when all streams are done,
and with a large model those of one take longer than another's by more than torch's half an hour.
As long do they wait for one that hangs: no longer than needed."""


def build_strategy(trainer: TrainerConfig) -> Strategy | str:
    """The strategy of a run; ``auto`` for one device."""
    if trainer.strategy is Parallel.FSDP2:
        if trainer.devices == "auto":
            raise ConfigError(
                "trainer.strategy=fsdp2 needs a number of devices; set trainer.devices to the "
                "devices of a machine."
            )
        return ShardedStrategy(
            int(trainer.devices) * trainer.num_nodes,
            process_group_backend=_backend(trainer),
            timeout=PATIENCE,
        )
    if trainer.strategy is Parallel.DDP or is_multi_process(trainer):
        # Buffers are constants here. A batch without a span of a kind leaves that head unused.
        return DDPStrategy(
            broadcast_buffers=False,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
            process_group_backend=_backend(trainer),
            timeout=PATIENCE,
        )
    return "auto"


def build_environment() -> list[ClusterEnvironment]:
    """What tells the Trainer who starts processes: Slurm, where it started several, or itself.

    Lightning goes by ``SLURM_NTASKS``, which salloc and sbatch set as well, and would refuse those
    tasks or wait for processes that nobody started. It goes by the job's name, too: salloc calls
    its jobs interactive, and each task of an srun therein would start further ones.

    Raises:
        ConfigError: Lightning refuses what Slurm was asked for.
    """
    if "SLURM_NTASKS" not in os.environ or TorchElasticEnvironment.detect():
        return []
    if Rendezvous.of_launch() is None:
        return [LightningEnvironment()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # by the job's name: use srun
        try:
            return [SLURMEnvironment(auto_requeue=False)]  # LastCheckpoint does that
        except RuntimeError as error:
            raise ConfigError(
                f"srun: Lightning refuses how the tasks were asked for ({error}); start the tasks "
                "of a machine by --ntasks-per-node, one for each device."
            ) from error


def _backend(trainer: TrainerConfig) -> str | None:
    """What the processes of a run talk through; None for Lightning's choice, on CPUs gloo."""
    if trainer.accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.device_count():
        return None
    atexit.register(_leave_process_group)  # as Lightning does where NCCL is all there is
    return _CPU_AND_GPU


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
