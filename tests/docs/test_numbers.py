"""The results that README and first page show are those of the runs that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.paper.committed import read_runs
from benchmarks.paper.plan import read_plan
from benchmarks.paper.results import Spread
from tests.docs.pages import ROOT

RUNS = read_runs(ROOT / "docs" / "results" / "runs.jsonl")
METRICS = {label: key for key, label in read_plan().metrics.items()}
ROWS = {"captaincook4d_tiny": "captaincook4d"}
"""Row of the study by experiment, where the two have different names."""


def tables(page: Path) -> Iterator[list[list[str]]]:
    """The tables of results of a page: rows of cells, the header first."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page.read_text("utf-8"), re.MULTILINE):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        if "utterance F1" in rows[0]:
            yield [rows[0], *rows[2:]]


def who_is_meant(label: str) -> str:
    """Where the metrics of a line are kept: nothing before those of the model itself."""
    names = {"zeros": "blind_zeros", "blind": "blind", "clock": "clock", "always": "always_speak"}
    found = [name for word, name in names.items() if word in label]
    return f"baseline/{found[0]}/" if found else ""


@pytest.mark.parametrize(("page", "num_numbers"), [("README.md", 48), ("docs/index.md", 9)])
def test_results_of_the_page_are_those_of_the_kept_runs(page: str, num_numbers: int) -> None:
    compared = 0
    for header, *lines in tables(ROOT / page):
        row = ""
        for label, *cells in lines:
            named = re.search(r"(?:experiment=|baselines of )(\w+)", label)
            row = ROWS.get(named[1], named[1]) if named else row
            for name, cell in zip(header[1:], cells, strict=True):
                if name in METRICS:
                    key = who_is_meant(label) + METRICS[name]
                    kept = Spread(tuple(run.metrics[key] for run in RUNS if run.row == row))
                    assert cell == str(kept).removesuffix(" ± 0.000"), f"{label}: {name}"
                    compared += 1
    assert compared == num_numbers
