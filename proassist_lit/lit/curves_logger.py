"""``metrics.csv`` that a resumed run goes on with, as if it had never stopped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from proassist_lit.atomic import write_text


class CurvesLogger(CSVLogger):
    """Lightning's logger of numbers to ``metrics.csv``, which would begin a new file each time.

    Args:
        folder: directory of the run.
        step: optimizer steps in the checkpoint that training goes on from; what the file says of
            later ones is cut, since it will be said again. None: training begins, and an earlier
            file is set aside as ``metrics.partN.csv``.
    """

    def __init__(self, folder: Path, *, step: int | None) -> None:
        super().__init__(save_dir=folder, name="", version="")
        path = folder / "metrics.csv"
        self._path = path
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        if not path.exists():
            return
        if step is None:
            _set_aside(path)
            return
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            self._rows = [row for row in reader if was_logged_before(row, step)]
            self._columns = list(reader.fieldnames or ())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Writes rows; made at first use, which clears the file."""
        if self._experiment is None:
            writer = super().experiment
            if self._columns:
                writer.metrics_keys = list(self._columns)
                write_text(self._path, to_csv(self._columns, self._rows))
        return self._experiment


@rank_zero_only
def _set_aside(path: Path) -> None:
    number = len(list(path.parent.glob("metrics.part*.csv"))) + 1
    path.rename(path.with_name(f"metrics.part{number}.csv"))


def was_logged_before(row: Mapping[str, str | None], step: int) -> bool:
    """Whether a row was written before training went on from step ``step``.

    Lightning counts the steps of its rows from 0, so the last of them has ``step - 1``; an
    evaluation counts the steps that were done.
    """
    try:
        at = int(row["step"] or "")
    except (KeyError, ValueError):
        return False  # a line that was cut
    begun = any(value for name, value in row.items() if name and name.startswith("train/"))
    return at < step or (at == step and not begun)


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
