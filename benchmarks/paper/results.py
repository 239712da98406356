"""What the runs of a study left behind, read back: numbers over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.plan import Plan
from benchmarks.paper.run import Run, read_run
from proassist_lit.errors import ConfigError


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, by_seed: Mapping[int, float]) -> Spread:
        """Of a number by seed."""
        return cls(tuple(by_seed.values()))

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float:
        """Sample standard deviation; 0 of one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        spread = f" ± {self.sd:.3f}" if len(self.values) > 1 else ""
        return f"{self.mean:.3f}{spread}"


class Study:
    """The runs of a study that are there.

    Args:
        directory: of the study.
        plan: what could be there.
        kept: runs of before, elsewhere, of which those stand in that the directory lacks.

    Attributes:
        outdated: kept runs whose row is gone or has other settings now; they are left out.
        there: rows that the directory has runs of, or that lost kept ones.
        changed: those of them whose runs are not the kept ones.

    Raises:
        ConfigError: the directory is missing, or a run in it cannot be read.
    """

    def __init__(self, directory: Path, plan: Plan, kept: Sequence[Run] = ()) -> None:
        if not directory.is_dir():
            raise ConfigError(f"{directory}: is no directory; run the study first.")
        self.directory, self._plan = directory, plan
        valid = [run for run in kept if run.row in plan.rows and run.is_of(plan.rows[run.row])]
        self.outdated = [run for run in kept if run not in valid]
        found = [
            read_run(path.parent, name, plan)
            for name in plan.rows
            for path in (directory / name).glob("seed*/metrics.json")
        ]
        gone = {run.row for run in self.outdated}
        same = {run.to_line() for run in valid}
        self.there = gone | {run.row for run in found}
        self.changed = gone | {run.row for run in found if run.to_line() not in same}
        runs = {(run.row, run.seed): run for run in (*valid, *found)}
        self.runs = {
            name: [runs[place] for place in sorted(runs) if place[0] == name] for name in plan.rows
        }

    @property
    def all_runs(self) -> list[Run]:
        """Every run, by row and seed."""
        return [run for runs in self.runs.values() for run in runs]

    def is_there(self, row: str) -> bool:
        """Whether the directory has runs of it, or of the row whose runs it evaluates."""
        return not self.there.isdisjoint({row, self._plan.rows[row].of})

    def is_changed(self, row: str) -> bool:
        """Whether it, or the row whose runs it evaluates, has other runs than those kept."""
        return not self.changed.isdisjoint({row, self._plan.rows[row].of})

    def is_older(self, row: str) -> bool:
        """Whether a run of it is from before ``Plan.since``, or evaluates one that is gone."""
        plan = self._plan
        bases = {run.seed: run.started or "" for run in self.runs.get(plan.rows[row].of, ())}
        since = plan.since.get("captaincook4d" if plan.rows[row].cook else "toy", "")
        return any(
            (run.started or "") < max(since, bases.get(run.seed, "")) for run in self.runs[row]
        )

    def by_seed(self, row: str, metric: str) -> Mapping[int, float]:
        """A number of a row, of the runs that have it."""
        return {run.seed: run.metrics[metric] for run in self.runs[row] if metric in run.metrics}

    def spread(self, row: str, metric: str) -> Spread | None:
        """A number of a row over its seeds; None if no run has it."""
        found = self.by_seed(row, metric)
        return Spread.of(found) if found else None
