"""The configuration of every row, composed and checked before an hour of runs, and its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.paper.jobs import ROOT, Job
from proassist_lit.commands.trained import override
from proassist_lit.composition import compose
from proassist_lit.config import RunConfig
from proassist_lit.data.generate import generate, generated_folder
from proassist_lit.errors import ConfigError

CONF = ROOT / "conf"


def check_rows(jobs: Sequence[Job]) -> list[RunConfig]:
    """Configuration of every row, once for all its seeds.

    Raises:
        ConfigError: names every row whose settings are refused, with the reason.
    """
    rows = {job.row.name: job for job in jobs}
    trained: dict[str, RunConfig] = {}
    composed: dict[tuple[str, ...], RunConfig] = {}
    faults, found = [], []
    for job in sorted(rows.values(), key=lambda j: bool(j.row.of)):
        try:
            if not job.row.of:
                chosen, settings = _apart(job.overrides)
                if chosen not in composed:  # Hydra takes its time
                    composed[chosen] = compose(chosen, conf_dir=CONF)
                trained[job.row.name] = override(composed[chosen], settings)
                found.append(trained[job.row.name])
            elif job.row.of in trained:
                found.append(override(trained[job.row.of], job.overrides))
        except ConfigError as error:
            faults += [f"row {job.row.name}: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def _apart(overrides: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Overrides that choose files (and the folder that those need), and those that set keys."""
    keys = [text.lstrip("+").partition("=")[0] for text in overrides]
    chooses = [key == "data.root" or (CONF / key).is_dir() for key in keys]
    return (
        tuple(text for text, is_choice in zip(overrides, chooses, strict=True) if is_choice),
        [text for text, is_choice in zip(overrides, chooses, strict=True) if not is_choice],
    )


def prepare_data(
    configs: Sequence[RunConfig], say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> None:
    """Draw all data first: jobs that drew the same at once would each do all the work."""
    todo: dict[Path, RunConfig] = {}
    for config in configs:
        if not config.data.is_prepared:
            todo.setdefault(generated_folder(config.data), config)
    for folder, config in todo.items():
        if not (folder / "manifest.json").is_file():
            say(f"drawing {folder}")
            generate(config.data)
