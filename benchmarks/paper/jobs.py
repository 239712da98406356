"""The jobs of the study: one subprocess for every row and seed, what it runs and what it leaves."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.plan import Row
from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError

ROOT = Path(__file__).parents[2]

TRAIN = [sys.executable, str(ROOT / "train.py")]
EVALUATE = [
    sys.executable, "-c",
    "import sys; from proassist_lit.commands.main import main; sys.exit(main())", "evaluate",
]  # fmt: skip
"""What a job begins with; its settings follow."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row with one seed.

    Attributes:
        row: what is run.
        seed: of training.
        study: directory of the study.
        root: folder of the annotation files of CaptainCook4D, if the row needs it.
        extra: further overrides, of all rows.
    """

    row: Row
    seed: int
    study: Path
    root: Path | None = None
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its place in the study."""
        return f"{self.row.name}/seed{self.seed}"

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.study / self.name

    @property
    def base(self) -> Path | None:
        """The run that it evaluates, if it trains none."""
        return self.study / self.row.of / f"seed{self.seed}" if self.row.of else None

    @property
    def log(self) -> Path:
        """What the job said."""
        return self.directory / "log.txt"

    @property
    def settings(self) -> list[str]:
        """What decides its result, wherever it is run."""
        return [*self.row.settings, *self.extra]

    @property
    def overrides(self) -> list[str]:
        """All settings but the directory."""
        root = [f"data.root={self.root}"] if self.root and self.row.cook else []
        own = [*self.settings[1:], f"data.cache={self.study / 'data'}", *root]
        if self.row.of:
            return own
        return [self.settings[0], *own, f"name={self.row.name}", f"seed={self.seed}"]

    @property
    def command(self) -> list[str]:
        """What is run."""
        if self.base is not None:
            return [*EVALUATE, str(self.base), *self.overrides, "--out", str(self.directory)]
        return [*TRAIN, *self.overrides, f"hydra.run.dir={self.directory}", "resume=auto"]

    @property
    def is_done(self) -> bool:
        """Whether its metrics are there."""
        return (self.directory / "metrics.json").is_file()

    def check_settings(self) -> None:
        """Refuse a directory in which something else was run.

        Raises:
            ConfigError: names what differs.
        """
        before = self.read_machine().get("settings", self.settings)
        if before != self.settings:
            differ = sorted(set(before) ^ set(self.settings))
            raise ConfigError(
                f"{self.directory}: was run with other settings ({' '.join(differ) or 'order'}); "
                "give the study another directory, or move this one away."
            )

    def read_machine(self) -> Mapping[str, Any]:
        """What ``write_machine`` wrote; empty if there is nothing."""
        path = self.directory / "machine.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def write_machine(self, notes: Mapping[str, Any]) -> None:
        """Note what is run, on what."""
        data = {**self.read_machine(), "settings": self.settings, **notes}
        write_text(self.directory / "machine.json", json.dumps(data, indent=1) + "\n")


def make_jobs(
    rows: Sequence[Row],
    study: Path,
    *,
    seeds: Sequence[int],
    extra: Sequence[str] = (),
    root: Path | None = None,
) -> list[Job]:
    """All jobs, seed by seed, so that a study cut short has whole tables; the longest first.

    Args:
        rows: what is run, with the rows that others are of.
        study: directory of the study.
        seeds: of rows that have none of their own.
        extra: overrides of all rows.
        root: folder of the annotation files of CaptainCook4D.
    """
    jobs = [
        Job(row=row, seed=seed, study=study, root=root, extra=tuple(extra))
        for row in rows
        for seed in row.seeds or seeds
    ]
    places = {seed: place for place, seed in enumerate(seeds)}
    return sorted(jobs, key=lambda j: (places.get(j.seed, 0), bool(j.row.of), -j.row.cost))


def cpu_name() -> str:
    """Name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
