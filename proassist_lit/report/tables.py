"""A table that prints itself in a terminal, and writes itself as CSV, Markdown or HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError
from proassist_lit.report.dashboard import DataTable

UNFINISHED = "running or failed"
"""Status of a job whose ``metrics.json`` is missing or unreadable."""

PRUNED = "pruned"
"""Status of a job that was ended early, because others of the search were better."""

Cell = str | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of jobs that prints, and writes itself as CSV, Markdown or HTML.

    Attributes:
        title: heading; the sweep directory's name.
        columns: names of the columns.
        rows: one a job, aligned with ``columns``; None is an empty cell.
        metric_columns: the columns that hold metrics; their best value is set in bold.
        lower_is_better: those of them whose best value is the lowest.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    metric_columns: tuple[str, ...]
    lower_is_better: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the table atomically, in the format of the suffix: .csv, .md or .html.

        Raises:
            ConfigError: another suffix.
        """
        path = Path(path)
        make = {".csv": self.to_csv, ".md": self.to_markdown, ".html": self.to_html}
        if path.suffix not in make:
            raise ConfigError(
                f"Table.write: {path.name!r} ends in {path.suffix!r}; name a file that ends in "
                f"one of {', '.join(make)}."
            )
        write_text(path, make[path.suffix]())

    def to_csv(self) -> str:
        """All digits, empty cells empty: for programs."""
        return DataTable(columns=self.columns, rows=self.rows).to_csv()

    def to_markdown(self) -> str:
        """For a README or an issue."""
        best = self._best()
        lines = [
            "| " + " | ".join(_markdown(column) for column in self.columns) + " |",
            "|"
            + "|".join(" ---: " if c in self.metric_columns else " --- " for c in self.columns)
            + "|",
        ]
        for i, row in enumerate(self.rows):
            cells = (
                f"**{_markdown(_text(cell))}**" if (i, j) in best else _markdown(_text(cell))
                for j, cell in enumerate(row)
            )
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """A page of its own: light and dark, no script."""
        best = self._best()
        head = "".join(f"<th scope=col>{escape(column)}</th>" for column in self.columns)
        body = "\n".join(
            "<tr>"
            + "".join(
                f"<td{_html_class(cell, (i, j) in best)}>{escape(_text(cell))}</td>"
                for j, cell in enumerate(row)
            )
            + "</tr>"
            for i, row in enumerate(self.rows)
        )
        title = escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_TABLE_CSS}</style>\n<h1>{title}</h1>\n"
            f"<div><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table></div>\n</html>\n"
        )

    def __rich__(self) -> RichTable:
        """What ``rich.print`` shows in a terminal."""
        best = self._best()
        table = RichTable(title=Text(self.title), box=box.SIMPLE_HEAD)
        for column in self.columns:
            number = column in self.metric_columns
            table.add_column(Text(column), justify="right" if number else "left")
        for i, row in enumerate(self.rows):
            table.add_row(
                *(
                    Text(
                        _text(cell),
                        style="bold green"
                        if (i, j) in best
                        else ("dim" if cell == UNFINISHED else ""),
                    )
                    for j, cell in enumerate(row)
                )
            )
        return table

    def _best(self) -> set[tuple[int, int]]:
        """(row, column) of the best values; none where fewer than two jobs have one."""
        best = set()
        for j, column in enumerate(self.columns):
            values = {
                i: cell
                for i, cell in enumerate(row[j] for row in self.rows)
                if isinstance(cell, float) and math.isfinite(cell)
            }
            if column in self.metric_columns and len(values) > 1:
                choose = min if column in self.lower_is_better else max
                top = choose(values.values())
                best |= {(i, j) for i, value in values.items() if value == top}
        return best


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4f}" if isinstance(cell, float) else cell


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _html_class(cell: Cell, best: bool) -> str:
    kind = "best" if best else "number" if isinstance(cell, float) else ""
    kind = "unfinished" if cell == UNFINISHED else kind
    return f" class={kind}" if kind else ""


_TABLE_CSS = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .35rem .8rem; text-align: left; border-bottom: 1px solid #8884; }
.number, .best { text-align: right; font-variant-numeric: tabular-nums; }
.best { font-weight: 700; }
.unfinished { opacity: .6; font-style: italic; }
"""
