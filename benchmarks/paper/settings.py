"""The configuration of every row, composed and checked before an hour of runs, and its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.paper.jobs import ROOT, Job
from proassist_lit.cli import compose
from proassist_lit.commands.evaluate import override
from proassist_lit.config import RunConfig
from proassist_lit.data.generate import generate, generated_folder
from proassist_lit.errors import ConfigError


def check_rows(jobs: Sequence[Job]) -> list[RunConfig]:
    """Configuration of every row, once for all its seeds.

    Raises:
        ConfigError: names every row whose settings are refused, with the reason.
    """
    rows = {job.row.name: job for job in jobs}
    trained: dict[str, RunConfig] = {}
    faults, found = [], []
    for job in sorted(rows.values(), key=lambda j: bool(j.row.of)):
        try:
            if not job.row.of:
                trained[job.row.name] = compose(job.overrides, conf_dir=ROOT / "conf")
                found.append(trained[job.row.name])
            elif job.row.of in trained:
                found.append(override(trained[job.row.of], job.overrides))
        except ConfigError as error:
            faults += [f"row {job.row.name}: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def prepare_data(
    configs: Sequence[RunConfig], say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> None:
    """Draw all data first: jobs that drew the same at once would each do all the work."""
    todo: dict[Path, RunConfig] = {}
    for config in configs:
        if not config.data.source.is_prepared:
            todo.setdefault(generated_folder(config.data), config)
    for folder, config in todo.items():
        if not (folder / "manifest.json").is_file():
            say(f"drawing {folder}")
            generate(config.data)
