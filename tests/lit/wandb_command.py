"""What W&B's own command line says of an offline run; its files have no other reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def offline_runs(folder: Path) -> list[Path]:
    """The W&B runs of a run directory, earliest first."""
    return sorted((folder / "wandb").glob("offline-run-*"))


def inspect(run: Path) -> dict[str, Any]:
    """Id, state, summary and configuration of an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
