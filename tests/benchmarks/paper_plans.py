"""Plans and rows of invented studies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.paper.plan import Claim, Plan, Row, Table
from benchmarks.paper.results import Study

ROWS = {
    "one": Row(name="one", label="One", experiment="per_token", set=("f1=0.5",)),
    "two": Row(name="two", label="Two", experiment="per_token", set=("f1=0.25",), cost=2.0),
    "again": Row(name="again", label="Again", of="one", set=("f1=-0.125",)),
    "cooked": Row(name="cooked", label="Cooked", experiment="per_token", cook=True),
}
METRICS = {"utterance_f1": "utterance F1", "baseline/blind/utterance_f1": "blind F1"}


def plan_of(*tables: Table, rows: Mapping[str, Row] = ROWS) -> Plan:
    return Plan(rows, tables, METRICS)


def table(*rows: str, name: str = "first", **settings: object) -> Table:
    return Table(
        name=name, title="First", about="About.", paper="Found.", rows=rows,
        metrics=("utterance_f1",), **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def with_set(row: str, *texts: str) -> Row:
    return replace(ROWS[row], set=texts)


def metrics_of(directory: Path, **values: float) -> None:
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(
        json.dumps({f"test/{name}": value for name, value in values.items()})
    )


def study_of(directory: Path, values: Mapping[str, tuple[float, ...]], plan: Plan) -> Study:
    """A study whose rows have these values, by seed from 1."""
    (directory / "study").mkdir(exist_ok=True)
    for row, numbers in values.items():
        for seed, value in enumerate(numbers, start=1):
            metrics_of(directory / "study" / row / f"seed{seed}", utterance_f1=value)
    return Study(directory / "study", plan)


def claim(row: str = "one", **settings: object) -> Claim:
    return Claim(says="It is so", metric="utterance_f1", row=row, **settings)  # type: ignore[arg-type]
