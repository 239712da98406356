"""What a job of a sweep came to: one small file in its run directory, written when it is done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from proassist_lit.atomic import write_text


class Pruned(Exception):  # noqa: N818  (no error: a way to end)
    """Training was ended early, because other trials of the search were better at this step."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Result of a job that came to its end.

    Attributes:
        value: what the sweep optimises; None if the job returns nothing, or was pruned.
        pruned: whether it was ended early on purpose.
    """

    value: float | None
    pruned: bool = False

    @classmethod
    def read(cls, run_dir: Path) -> Self | None:
        """Result of the job in ``run_dir``; None if it did not come to its end."""
        path = _file(run_dir)
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def write(self, run_dir: Path) -> None:
        """Keep it in ``run_dir``, whole or not at all."""
        write_text(_file(run_dir), json.dumps(asdict(self)) + "\n")


def _file(run_dir: Path) -> Path:
    return run_dir / "job.json"
