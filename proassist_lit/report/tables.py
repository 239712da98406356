"""One table over the jobs of a multirun: what differed, and what came out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError

MAIN_METRICS = (
    "test/utterance_f1",
    "test/content_accuracy",
    "test/dst_update_f1",
    "test/dst_joint_goal_accuracy",
    "test/speak_f1",
)
"""Keys of ``metrics.json`` that a multirun is compared by; all are better when higher."""

UNFINISHED = "running or failed"
"""Status of a job whose ``metrics.json`` is missing or unreadable."""

Cell = str | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of jobs that prints, and writes itself as CSV, Markdown or HTML.

    Attributes:
        title: heading; the sweep directory's name.
        columns: names of the columns.
        rows: one a job, aligned with ``columns``; None is an empty cell.
        metric_columns: the columns that hold metrics; their best value is set in bold.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    metric_columns: tuple[str, ...]

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
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()

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
                top = max(values.values())
                best |= {(i, j) for i, value in values.items() if value == top}
        return best


def multirun_table(sweep_dir: Path) -> Table:
    """Gather the jobs of a multirun into one table.

    A job is a subdirectory with a ``config.yaml``, a ``metrics.json`` or Hydra's ``.hydra``. A
    job without readable metrics is listed as ``running or failed``: a table of a sweep that is
    still going on is the one most often looked at.

    Args:
        sweep_dir: the directory of the multirun.

    Returns:
        Columns: ``job``, ``status``, every config key whose value is not the same in all jobs,
        then the main metrics on test. Rows in order of the jobs' names, numbers by value.

    Raises:
        ConfigError: ``sweep_dir`` is no directory.
    """
    sweep_dir = Path(sweep_dir)
    if not sweep_dir.is_dir():
        raise ConfigError(
            f"multirun_table: {str(sweep_dir)!r} is not a directory; give the directory that "
            "holds one subdirectory for each job."
        )
    jobs = sorted(filter(_is_job, sweep_dir.iterdir()), key=lambda job: _natural(job.name))
    metrics = [_read_metrics(job / "metrics.json") for job in jobs]
    configs = [_read_config(job / "config.yaml") for job in jobs]
    keys = _differing_keys([config for config in configs if config is not None])
    return Table(
        title=sweep_dir.resolve().name,
        columns=("job", "status", *keys, *MAIN_METRICS),
        rows=tuple(
            (
                job.name,
                UNFINISHED if result is None else "done",
                *((config or {}).get(key) for key in keys),
                *((result or {}).get(key) for key in MAIN_METRICS),
            )
            for job, result, config in zip(jobs, metrics, configs, strict=True)
        ),
        metric_columns=MAIN_METRICS,
    )


def _is_job(path: Path) -> bool:
    return path.is_dir() and any(
        (path / name).exists() for name in ("config.yaml", "metrics.json", ".hydra")
    )


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which job 2 comes before job 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _read_metrics(path: Path) -> dict[str, float] | None:
    """Numbers of a ``metrics.json``; None if it cannot be read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a file half written, or none
        return None
    if not isinstance(raw, dict):
        return None
    return {
        key: float(value)
        for key, value in raw.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _read_config(path: Path) -> dict[str, str] | None:
    """Settings of a ``config.yaml`` under dotted keys, as text; None if it cannot be read."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _flat(raw) if isinstance(raw, Mapping) else None


def _flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    settings: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            settings |= _flat(value, f"{name}.")
        else:
            settings[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return settings


def _differing_keys(configs: list[dict[str, str]]) -> tuple[str, ...]:
    """Keys that are not the same in all configs, in order of first appearance."""
    names = dict.fromkeys(name for config in configs for name in config)
    return tuple(name for name in names if len({config.get(name) for config in configs}) > 1)


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
