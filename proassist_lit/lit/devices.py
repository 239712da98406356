"""What a run trains on: told before anything is read where this machine has no such thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import ParallelStrategy

from proassist_lit.data.record_checks import nearest
from proassist_lit.errors import ConfigError, ProAssistError
from proassist_lit.rendezvous import Rendezvous
from proassist_lit.trainer_config import TrainerConfig

_GPUS = ("mps", "cuda")
"""What Lightning looks for, in its order, where ``gpu`` or ``auto`` is asked for."""


def check_devices(trainer: TrainerConfig) -> None:
    """Refuse an accelerator that Lightning does not know, and devices that are not there.

    Of ``devices=auto``, also others than processes were started.

    Raises:
        ConfigError: with what there is.
    """
    name = trainer.accelerator
    names = ["auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())]
    if name not in names:
        raise ConfigError(
            f"trainer.accelerator={name}: Lightning knows no such accelerator; the nearest is "
            f"{nearest(name, names)!r} (there are {', '.join(names)})."
        )
    kinds = [
        AcceleratorRegistry[kind]["accelerator"]
        for kind in (_GPUS if name in ("auto", "gpu") else (name,))
    ]
    found = [kind for kind in kinds if kind.is_available()]
    if not found and name != "auto":
        raise ConfigError(
            f"trainer.accelerator={name}: this machine has no {name.upper()} that torch can use "
            f"(torch {torch.__version__}); choose auto or cpu."
        )
    if trainer.devices == "auto":
        count = found[0].auto_device_count() if found else 1
        _check_launch(count, trainer.num_nodes, count * trainer.num_nodes)
    elif found:
        try:
            found[0].parse_devices(int(trainer.devices))
        except MisconfigurationException as error:
            raise ConfigError(
                f"trainer.devices={trainer.devices}: {' '.join(str(error).split())} Lower it, or "
                "set trainer.devices=auto."
            ) from error


def check_processes(trainer: L.Trainer) -> None:
    """Refuse a Trainer that works with fewer processes than were started, or with more.

    With ``devices=auto`` Lightning takes what the process sees: where every task sees one GPU, each
    would train a whole run of its own, in the directory of all.

    Raises:
        ConfigError: with what to start, or to set.
        ValueError: Lightning's own, of a machine's tasks and devices.
    """
    _check_launch(trainer.num_devices, trainer.num_nodes, trainer.world_size)
    strategy = trainer.strategy
    if isinstance(strategy, ParallelStrategy) and strategy.launcher is not None:
        assert strategy.cluster_environment is not None
        # as its launcher does, but not in the middle of fit()
        strategy.cluster_environment.validate_settings(trainer.num_devices, trainer.num_nodes)


def _check_launch(num_devices: int, num_nodes: int, world: int) -> None:
    """Refuse a run of ``world`` processes, so many on each machine, where others were started."""
    launch = Rendezvous.of_launch()
    if launch is None or num_devices * num_nodes == world == launch.world:
        return
    raise ConfigError(
        f"{launch.world} processes were started, but by the devices that it sees this one has "
        f"{num_devices} for each of {num_nodes} machines, in a run of {world} processes. Let every "
        "process see all GPUs of its machine (with Slurm --gpus-per-node, not --gpus-per-task), "
        "set trainer.devices to the processes of a machine and trainer.num_nodes to the machines, "
        "or start one process."
    )


@contextmanager
def refusals_of_lightning() -> Iterator[None]:
    """Tell what Lightning refuses while a ``Trainer`` is built as a fault of the settings."""
    try:
        yield
    except ProAssistError:
        raise
    except (MisconfigurationException, ValueError, ImportError) as error:
        raise ConfigError(
            f"trainer: Lightning refuses these settings: {' '.join(str(error).split())} Change "
            "trainer.accelerator, devices, strategy or precision."
        ) from error
