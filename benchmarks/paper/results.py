"""What the runs of a study left behind, read back: numbers over seeds, and what they bear out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import ttest_ind

from benchmarks.paper.plan import Claim, Plan
from benchmarks.paper.run import Run, read_run
from proassist_lit.errors import ConfigError
from proassist_lit.metrics.directions import lower_is_better

CHANCE = 0.05
"""A difference counts as seen if chance would make one so large less often than this."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    values: tuple[float, ...]

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


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: itself.
        verdict: ``agrees``, ``does not agree``, either of them ``, within chance``; that there is
            one seed, with which nothing is tested; or ``not run``.
        numbers: on what it rests.
    """

    claim: Claim
    verdict: str
    numbers: str


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

    def spread(self, row: str, metric: str) -> Spread | None:
        """A number of a row over its seeds; None if no run has it."""
        values = [run.metrics.get(metric) for run in self.runs[row]]
        found = tuple(value for value in values if value is not None)
        return Spread(found) if found else None

    def judge(self, claim: Claim) -> Verdict:
        """Whether the runs bear ``claim`` out."""
        own = self.spread(claim.row, claim.metric)
        if own is None:
            return Verdict(claim, "not run", "")
        if other := claim.better or claim.same:
            theirs = self.spread(other, claim.metric)
            if theirs is None:
                return Verdict(claim, "not run", "")
            return self._compare(claim, own, theirs)
        bound, shown = claim.at_least if claim.at_least is not None else claim.at_most, ""
        assert bound is not None
        if claim.share_of_own:
            whole = self.spread(claim.row, claim.share_of_own)
            if whole is None:
                return Verdict(claim, "not run", "")
            bound, shown = bound * whole.mean, f" ({bound:g} of {whole.mean:.3f})"
        reached = own.mean >= bound if claim.at_least is not None else own.mean <= bound
        sign = "≥" if claim.at_least is not None else "≤"
        return Verdict(
            claim, "agrees" if reached else "does not agree", f"{own}, {sign} {bound:.3g}{shown}"
        )

    def _compare(self, claim: Claim, own: Spread, theirs: Spread) -> Verdict:
        names = self._plan.rows
        other = names[claim.better or claim.same].label
        numbers = f"{own} against {theirs} ({names[claim.row].label}, {other})"
        chance = chance_of(own, theirs)
        numbers += "" if chance is None else f"; p = {chance:.2g}"
        seen = chance is not None and chance < CHANCE
        if claim.same:
            if chance is None:
                return Verdict(claim, "one seed, not tested", numbers)
            verdict = "does not agree" if seen else "agrees: no difference seen"
            return Verdict(claim, verdict, numbers)
        less = lower_is_better(claim.metric)
        agrees = own.mean < theirs.mean if less else own.mean > theirs.mean
        verdict = "agrees" if agrees else "does not agree"
        if not seen:
            verdict += "; one seed, not tested" if chance is None else ", within chance"
        return Verdict(claim, verdict, numbers)


def chance_of(one: Spread, two: Spread) -> float | None:
    """Two-sided p of Welch's t-test; None where either has a single value."""
    if min(len(one.values), len(two.values)) < 2:
        return None
    if one.sd == two.sd == 0.0:  # no variance to divide by
        return 1.0 if one.mean == two.mean else 0.0
    return float(ttest_ind(one.values, two.values, equal_var=False).pvalue)
