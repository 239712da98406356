"""The numbers of every run, kept beside the page, and whether runs of today reach them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.results import Spread, Study
from benchmarks.paper.run import Run, run_from_line
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


def write_runs(study: Study, path: Path) -> None:
    """Write one line of JSON for every run."""
    write_text(path, "".join(run.to_line() for run in study.all_runs))


def read_runs(path: Path) -> list[Run]:
    """What ``write_runs`` wrote.

    Raises:
        ConfigError: ``path`` is missing or no such file; names the line.
    """
    runs = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                runs.append(run_from_line(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{path}:{number}: is no run ({error!r}); write the file again with `report`."
                ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; write it with `report`.") from error
    return runs


def repeats(study: Study, path: Path) -> Iterator[Repeat]:
    """Compare the runs of ``study`` with those kept in ``path``.

    Raises:
        ConfigError: ``path`` is missing or no such file, or holds no run of any row of the study.
    """
    kept: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in read_runs(path):
        for metric, value in run.metrics.items():
            kept[run.row][metric].append(value)
    found = False
    for run in study.all_runs:
        for metric, values in kept.get(run.row, {}).items():
            found = True
            yield Repeat(
                f"{run.row}/seed{run.seed}", metric, run.metrics.get(metric), Spread(tuple(values))
            )
    if not found:
        raise ConfigError(
            f"{path}: holds none of the rows that {study.directory} has; run one of "
            f"{', '.join(kept) or 'them'}."
        )
