"""``proassist-lit runs``: one table over all runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import console, writing_to

if TYPE_CHECKING:
    from proassist_lit.report.tables import Table

MOST_KEYS = 6
"""Settings that a terminal shows; files hold all."""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "runs",
        help="one table over all runs: what differed, what came out",
        description="Show all runs below a directory, jobs of multiruns and evaluations included: "
        "the settings that are not the same in all, and the metrics, the best run first.",
    )
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        metavar="DIR",
        help="searched with all that is in it (default: outputs)",
    )
    parser.add_argument(
        "--sort",
        metavar="METRIC",
        help="key of metrics.json (default: test/utterance_f1, or val/utterance_f1 where no run "
        "has a test)",
    )
    parser.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="keys of metrics.json to show"
    )
    parser.add_argument(
        "--keys", nargs="+", metavar="KEY", help="settings to show (default: those that differ)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the table to a .csv, .md or .html file, too; may be given again",
    )
    parser.set_defaults(run_command=runs)


def runs(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.report.runs import runs_table

    table = runs_table(
        arguments.directory,
        sort=arguments.sort,
        metrics=arguments.metrics,
        keys=arguments.keys or (),
    )
    for path in arguments.out:
        with writing_to("--out", path):
            table.write(path)
    console().print(_with_keys(table, arguments.keys))
    for path in arguments.out:
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _with_keys(table: Table, asked: list[str] | None) -> Table:
    """The table with the settings that are asked for, else with the first few."""
    fixed = ("run", "status", *table.metric_columns)
    keys = [column for column in table.columns if column not in fixed]
    shown = keys[:MOST_KEYS] if asked is None else [key for key in keys if key in asked]
    if asked is None and len(keys) > len(shown):
        sys.stderr.write(
            f"{len(keys)} settings differ; shown are {', '.join(shown)} (--keys for others, --out "
            "for all)\n"
        )
    columns = [c for c in table.columns if c in fixed or c in shown]
    places = [table.columns.index(column) for column in columns]
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, columns=tuple(columns), rows=rows)
