"""What is shown of an evaluation, wherever it is shown: numbers, tables, charts and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """Rows under named columns.

    Attributes:
        columns: their names.
        rows: aligned with ``columns``; None is an empty cell. A column holds numbers or words,
            never both.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_csv(self) -> str:
        """All digits, empty cells empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()

    def to_markdown(self) -> str:
        """Numbers to four digits."""
        lines = [self.columns, tuple("---" for _ in self.columns)]
        lines += [tuple(_text(cell) for cell in row) for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def first(self, num_rows: int) -> DataTable:
        """The table cut to its first rows."""
        return DataTable(columns=self.columns, rows=self.rows[:num_rows])


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines in one pair of axes.

    Attributes:
        title: what is seen.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
        lines: (x, y) points by name, in the order in which they are joined.
        diagonal: y = x is where a line should lie.
    """

    title: str
    x_name: str
    y_name: str
    lines: Mapping[str, tuple[tuple[float, float], ...]]
    diagonal: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn picture.

    Attributes:
        caption: what is seen, in one line.
        png: the encoded picture.
    """

    caption: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Everything that is shown of one evaluation. Keys are grouped by what stands before a ``/``.

    Attributes:
        metrics: flat, keys as in ``metrics.json``: ``val_stream/utterance_f1``,
            ``baseline/blind/test/utterance_f1``, ``similarity``.
        tables: by name; of a whole evaluation only.
        charts: by name, ``test/calibration``; of a whole evaluation only.
        pictures: by name, ``timelines/1``; the same streams at every evaluation of a run.
        is_whole: every stream was answered and nothing more is to come; else a look at a few
            streams while training goes on.
    """

    metrics: Mapping[str, float | str]
    tables: Mapping[str, DataTable] = field(default_factory=dict)
    charts: Mapping[str, Chart] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    is_whole: bool = False

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are numbers."""
        return {k: v for k, v in self.metrics.items() if not isinstance(v, str)}


class Sink(Protocol):
    """A place where dashboards are shown."""

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Show ``dashboard`` as of optimizer step ``step``."""

    def finish(self, *, failed: bool = False) -> None:
        """Nothing more will be shown; ``failed``: because the run ended with an error."""


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell).replace("|", "\\|").replace("\n", " ")
