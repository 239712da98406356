"""What starts the jobs of a multirun: what it needs installed, and what it cannot do."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from proassist_lit.errors import ConfigError
from proassist_lit.rendezvous import Rendezvous
from proassist_lit.trainer_config import TrainerConfig

_ONE_PROCESS_EACH = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "joblib",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "submitit_local",
}
"""Launchers that give a job one process, by their ``_target_``."""

_SIDE_BY_SIDE = ("joblib", "submitit_local")
"""Those of them that run several jobs at a time on one machine."""

_TIME_UP = ("submitit.core.utils", "UncompletedJobError")
"""Module and name of what is raised in a job when submitit's limit of time is spent."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list[FileLock] = []
"""Of GPUs that this process took; whatever ends it, the system lets go of them."""

_NEEDED = {
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/sweeper=proassist_optuna": ("optuna", "sweep"),
}
"""Module and extra of what can be chosen."""


def check_installed(choice: str) -> None:
    """Refuse a choice (``hydra/launcher=joblib``) whose packages are missing.

    Raises:
        ConfigError: with the command that installs them.
    """
    module, extra = _NEEDED.get(choice, ("", ""))
    if module and not _is_installed(module):
        raise ConfigError(
            f"{choice}: needs the extra {extra!r}, which is not installed; in the folder of "
            f"pyproject.toml: pip install -e '.[{extra}]'"
        )


def check_processes(trainer: TrainerConfig, target: str) -> None:
    """Refuse a job of several processes where the launcher gives it one.

    The further processes are started by the command of the first, which here is a multirun; and
    the next job would find the process group of the last.

    Args:
        trainer: of the job.
        target: ``_target_`` of the launcher.

    Raises:
        ConfigError: with what to do instead.
    """
    name = _ONE_PROCESS_EACH.get(target)
    if name is None:
        return
    if Rendezvous.of_launch() is not None:
        raise ConfigError(
            "a multirun cannot be started by torchrun or srun, whose processes work on one run; "
            "start it by python, or each job by a command of its own (docs/sweeps.md)."
        )
    if not is_multi_process(trainer):
        return
    nodes = f" trainer.num_nodes={trainer.num_nodes}" if trainer.num_nodes > 1 else ""
    raise ConfigError(
        f"trainer.devices={trainer.devices}{nodes} starts several processes for a job, which a "
        f"multirun under hydra/launcher={name} cannot: its jobs have one process each. Set "
        "trainer.devices=1 (with hydra/launcher=joblib jobs run side by side), let Slurm start the "
        "processes (hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=N), or start each "
        "job by a command of its own (docs/sweeps.md)."
    )


def take_gpu(job_num: int, target: str, sweep_dir: Path) -> None:
    """Leave a job one GPU of several, where others run beside it: all would take the first one.

    The one of its number, or the next that no other process of the sweep holds; with more jobs at
    a time than GPUs, that of its number is shared. By what the process sees, so that Trainer,
    searches, 4-bit weights and evaluation agree. CUDA looks once: a process that gets further jobs
    keeps the GPU of its first.

    Args:
        job_num: number of the job in its multirun.
        target: ``_target_`` of the launcher.
        sweep_dir: of the multirun, where a file for each GPU is locked.
    """
    if _ONE_PROCESS_EACH.get(target) not in _SIDE_BY_SIDE:
        return
    import torch

    num_gpus = torch.cuda.device_count()
    if num_gpus < 2 or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    seen = os.environ.get(_VISIBLE)
    names = seen.split(",") if seen else [str(gpu) for gpu in range(num_gpus)]
    own = job_num % num_gpus
    turn = [*names[own:num_gpus], *names[:own]]
    os.environ[_VISIBLE] = next((name for name in turn if _hold(name, sweep_dir)), names[own])


def _hold(gpu: str, sweep_dir: Path) -> bool:
    """Keep other processes of the sweep from a GPU of this machine; False if one has it."""
    folder = sweep_dir / ".gpus"
    lock = FileLock(folder / f"{platform.node()}-{gpu.strip().replace('/', '_')}.lock")
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(blocking=False)
    except (Timeout, OSError, NotImplementedError):  # or there are no locks on this disk
        return False
    _held.append(lock)
    return True


def is_time_up(error: object) -> bool:
    """Whether a job ended as its time was up: nothing is wrong with it, and it can go on."""
    return (type(error).__module__, type(error).__qualname__) == _TIME_UP


def is_multi_process(trainer: TrainerConfig) -> bool:
    """Whether a run has several processes, one for each device."""
    if trainer.num_nodes > 1:
        return True
    if trainer.devices != "auto":
        return trainer.devices.isdigit() and int(trainer.devices) > 1
    if trainer.accelerator == "cpu":
        return False
    import torch

    return torch.cuda.device_count() > 1


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
