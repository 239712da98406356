"""How a run was made: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_VERSIONS = ("proassist-lit", "torch", "lightning", "transformers", "hydra-core", "wandb")


def gather_notes(**further: str) -> dict[str, str]:
    """Git commit, machine, versions and what is given."""
    notes = {"git commit": _git_commit(), "machine": _machine()}
    notes["python"] = platform.python_version()
    for package in _VERSIONS:
        notes[package] = installed_version(package) or "not installed"
    return notes | further


def installed_version(package: str) -> str | None:
    """Version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str:
    """Commit of the source tree, with ``-dirty`` if it was changed; ``unknown`` outside git."""
    folder = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return out.stdout.strip()


def _machine() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()}, {os.cpu_count()} CPU cores"
