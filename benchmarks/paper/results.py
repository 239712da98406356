"""What the runs of a study left behind, read back: numbers over seeds, and what they bear out."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import ttest_ind

from benchmarks.paper.plan import Claim, Plan
from proassist_lit.errors import ConfigError
from proassist_lit.metrics.directions import lower_is_better
from proassist_lit.report.scoreboard import reported_split

CHANCE = 0.05
"""A difference counts as seen if chance would make one so large less often than this."""


@dataclass(frozen=True)
class Run:
    """One run that came to its end.

    Attributes:
        directory: of the run.
        metrics: ``metrics.json``.
        machine: ``machine.json``, with the command; empty if it was run by hand.
    """

    directory: Path
    metrics: Mapping[str, float | str]
    machine: Mapping[str, Any]

    @property
    def split(self) -> str:
        """Split that is reported: test where there is one."""
        return reported_split(self.metrics)

    def value(self, metric: str) -> float | None:
        """A number of the reported split; None if the run has none.

        Args:
            metric: key without split; that of a baseline begins with ``baseline/NAME/``.
        """
        *prefix, name = metric.split("/")
        value = self.metrics.get("/".join([*prefix, self.split, name]))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def commit(self) -> str | None:
        """Of the sources: what was told where git could not, else what the run noted."""
        notes = self.read("notes.json") or {}
        return self.machine.get("commit") or notes.get("git commit")

    def setting(self, key: str) -> Any:
        """A value of its ``config.yaml``.

        Raises:
            ConfigError: there is no such key.
        """
        value: Any = yaml.safe_load((self.directory / "config.yaml").read_text(encoding="utf-8"))
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ConfigError(f"{self.directory / 'config.yaml'}: has no {key}; mend the plan.")
            value = value[part]
        return value

    def read(self, name: str) -> Any:
        """A JSON file of the run; None if there is none."""
        path = self.directory / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


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

    Raises:
        ConfigError: the directory is missing, or a ``metrics.json`` cannot be read.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        if not directory.is_dir():
            raise ConfigError(f"{directory}: is no directory; run the study first.")
        self.directory, self._plan = directory, plan
        self.runs = {name: self._read_row(name) for name in plan.rows}

    def _read_row(self, name: str) -> Sequence[Run]:
        found = (path.parent for path in (self.directory / name).glob("seed*/metrics.json"))
        return [_read_run(run) for run in sorted(found, key=lambda path: int(path.name[4:]))]

    @property
    def all_runs(self) -> list[Run]:
        """Every run, by row and seed."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def commands(self) -> list[str]:
        """Command lines with which the study was run; folders, which differ, are called DIR."""
        path = self.directory / "study.json"
        lines = json.loads(path.read_text(encoding="utf-8"))["commands"] if path.is_file() else []
        return [
            " ".join(
                "DIR" if before in ("run", "--cook") else word
                for before, word in zip(["", *line], line, strict=False)
            )
            for line in lines
        ]

    def spread(self, row: str, metric: str) -> Spread | None:
        """A number of a row over its seeds; None if no run has it."""
        values = [run.value(metric) for run in self.runs[row]]
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


def _read_run(directory: Path) -> Run:
    path = directory / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        machine = directory / "machine.json"
        notes = json.loads(machine.read_text(encoding="utf-8")) if machine.is_file() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{directory}: {error}; run it again, or take it out of the study."
        ) from error
    return Run(directory, metrics, notes)


def threshold_curve(run: Run) -> Mapping[float, Mapping[str, float]]:
    """Metrics on val by threshold of P(speak), with the threshold of updates that was tried most.

    Those thresholds that every run is streamed with are there; what the calibration adds differs
    from run to run.
    """
    points = [point for point in run.read("sweep.json") or () if point["split"] == "val"]
    if not points:
        return {}
    thetas = [point["theta_dst"] for point in points]
    usual = statistics.mode(thetas)
    asked = set(run.setting("evaluation.sweep_speak"))
    return {
        point["theta_speak"]: point["metrics"]
        for point in sorted(points, key=lambda p: float(p["theta_speak"]))
        if point["theta_dst"] == usual and point["theta_speak"] in asked
    }
