"""The numbers of every run, kept beside the page, and whether runs of today reach them again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.plan import Plan
from benchmarks.paper.results import Run, Spread, Study
from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError

TOLERANCE = 0.05
"""How far a number may lie from the one that was kept where no spread over seeds is known.

The same seed gives other roundings on another processor, and after a thousand steps another model.
"""

NUM_SDS = 3.0
"""How many standard deviations of a seed it may be off, if that is more."""


@dataclass(frozen=True)
class Repeat:
    """One number of a run, beside those of the runs that were kept.

    Attributes:
        name: row and seed of the run.
        metric: key without split.
        value: of the run; None if it has none.
        kept: of all kept runs of the row.
    """

    name: str
    metric: str
    value: float | None
    kept: Spread

    @property
    def allowed(self) -> float:
        """How far ``value`` may lie from the mean."""
        return max(TOLERANCE, NUM_SDS * self.kept.sd)

    @property
    def agrees(self) -> bool:
        """Whether it lies so near."""
        return self.value is not None and abs(self.value - self.kept.mean) <= self.allowed

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.3f}"
        verdict = "agrees" if self.agrees else "DIFFERS"
        return f"{self.name} {self.metric}: {value}, kept {self.kept}, {verdict}"


def write_runs(plan: Plan, study: Study, path: Path) -> None:
    """Write one line of JSON for every run: what it was, and its numbers that the plan names."""
    lines = []
    for row, runs in study.runs.items():
        for run in runs:
            data = {
                "row": row,
                "seed": int(run.directory.name.removeprefix("seed")),
                "split": run.split,
                "settings": run.machine.get("settings", []),
                "commit": run.commit,
                "started": run.machine.get("started"),
                "cpu": run.machine.get("cpu"),
                "seconds": run.machine.get("seconds"),
                "metrics": _numbers(run, plan),
            }
            lines.append(json.dumps(data) + "\n")
    write_text(path, "".join(lines))


def repeats(plan: Plan, study: Study, path: Path) -> Iterator[Repeat]:
    """Compare the runs of ``study`` with those kept in ``path``.

    Raises:
        ConfigError: ``path`` is missing or no such file, or holds no run of any row of the study.
    """
    kept = _read(path)
    found = False
    for row, runs in study.runs.items():
        for run in runs if row in kept else ():
            found = True
            numbers = _numbers(run, plan)
            for metric, values in kept[row].items():
                name = f"{row}/{run.directory.name}"
                yield Repeat(name, metric, numbers.get(metric), Spread(tuple(values)))
    if not found:
        raise ConfigError(
            f"{path}: holds none of the rows that {study.directory} has; run one of "
            f"{', '.join(kept) or 'them'}."
        )


def _numbers(run: Run, plan: Plan) -> Mapping[str, float]:
    values = {metric: run.value(metric) for metric in plan.metrics}
    return {metric: value for metric, value in values.items() if value is not None}


def _read(path: Path) -> Mapping[str, Mapping[str, list[float]]]:
    """Values by row and metric."""
    out: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                data = json.loads(line)
                for metric, value in data["metrics"].items():
                    out[data["row"]][metric].append(float(value))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{path}:{number}: is no run ({error!r}); write the file again with `report`."
                ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; write it with `report`.") from error
    return out
