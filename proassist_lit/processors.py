"""How many processors there are for this process, not how many the machine has."""

from __future__ import annotations

import os


def num_processors() -> int:
    """Processors that this process may use, at least 1.

    A job of Slurm, ``taskset`` and a container's set of processors leave a process some of the
    machine's; macOS and Windows tell of no such bounds.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
