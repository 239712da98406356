"""Processes that torchrun or Slurm start at once agree on the directory of their run.

The first process names it, the others wait to be told: each would otherwise make one of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError

PATIENCE_S = 600.0
"""How long the first process may take to name the directory."""

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_first_process() -> bool:
    """Whether this is the first, mostly the only, of the processes that work on one run."""
    # Within Slurm torchrun numbers the nodes by itself; Slurm's own number may be another.
    ranks = ("RANK",) if "TORCHELASTIC_RUN_ID" in os.environ else _RANKS
    return all(os.environ.get(name, "0") == "0" for name in ranks)


class Rendezvous:
    """Where the processes of one launch tell each other of their run.

    Args:
        environment: what the launcher set for this process.

    Attributes:
        rank: number of this process, the first one is 0.
        world: how many there are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._is_over = False  # whether the others know all that they will be told
        self._is_torchrun = "TORCHELASTIC_RUN_ID" in environment
        self.rank = int(environment.get("RANK" if self._is_torchrun else "SLURM_PROCID", 0))
        self.world = (
            int(environment.get("WORLD_SIZE", 1))
            if self._is_torchrun
            else tasks_of_step(environment)
        )

    @classmethod
    def of_launch(cls) -> Rendezvous | None:
        """That of this process; None if it was started alone."""
        found = cls(os.environ)
        return found if found.world > 1 else None

    def check_devices(self, devices: str, num_nodes: int) -> None:
        """Refuse settings by which every process would train a whole run of its own.

        Args:
            devices: ``trainer.devices``, of a machine; ``auto`` is checked as the Trainer is built.
            num_nodes: machines.

        Raises:
            ConfigError: there are not as many devices as processes.
        """
        if devices != "auto" and int(devices) * num_nodes != self.world:
            raise ConfigError(
                f"{self.world} processes were started, but trainer.devices={devices} on "
                f"trainer.num_nodes={num_nodes} takes {int(devices) * num_nodes}; set "
                "trainer.devices to the processes of a machine and trainer.num_nodes to the "
                "machines, or start one process."
            )

    def name(self, run_dir: Path) -> None:
        """Tell the other processes, as the first one."""
        self._tell(str(run_dir.resolve()))

    def close(self) -> None:
        """The first process ends: tell the others, unless it told them of a run."""
        if self.rank == 0 and not self._is_over:
            self._tell("")

    def _tell(self, text: str) -> None:
        self._is_over = True
        if self._is_torchrun:
            self._store().set(self._key(), f"={text}")
        else:
            write_text(self._file(), f"={text}")

    def wait(self) -> Path | None:
        """The directory that the first process names; None if it ended without.

        Raises:
            ConfigError: it did not name one in time.
        """
        text = self._wait_for_store() if self._is_torchrun else self._wait_for_file()
        return Path(text[1:]) if text[1:] else None

    def _store(self) -> TCPStore:
        """The one of torchrun, which outlives every process."""
        host, port = self._environment["MASTER_ADDR"], int(self._environment["MASTER_PORT"])
        return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=PATIENCE_S))

    def _wait_for_store(self) -> str:
        try:
            return self._store().get(self._key()).decode()
        except RuntimeError as error:  # torch's DistStoreError is one
            raise self._late() from error

    def _key(self) -> str:
        attempt = self._environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"proassist_lit/run_dir/{attempt}"

    def _file(self) -> Path:
        """In the folder that the job was started from, which Slurm's nodes share."""
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return Path(".run_of_job_" + "_".join(self._environment.get(n, "0") for n in names))

    def _wait_for_file(self) -> str:
        file, ends = self._file(), time.monotonic() + PATIENCE_S
        while not file.exists():
            if time.monotonic() > ends:
                raise self._late()
            time.sleep(0.2)
        return file.read_text(encoding="utf-8")

    def _late(self) -> ConfigError:
        return ConfigError(
            f"process {self.rank} of {self.world}: the first process did not name the directory of "
            f"the run within {PATIENCE_S:.0f} s; look at its log, and start all from one folder "
            "that every node sees."
        )


def tasks_of_step(environment: Mapping[str, str]) -> int:
    """How many processes srun started, this one included; 1 without srun.

    ``SLURM_NTASKS`` is what was asked for: salloc and sbatch set it where they start one process.
    """
    if "SLURM_STEP_NUM_TASKS" in environment:
        return int(environment["SLURM_STEP_NUM_TASKS"])
    return int(environment.get("SLURM_NTASKS", 1)) if "SLURM_STEP_ID" in environment else 1
