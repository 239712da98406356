"""One table over runs: what differed, and what came out."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from proassist_lit.data.record_checks import nearest
from proassist_lit.errors import ConfigError
from proassist_lit.job_result import JobResult
from proassist_lit.metrics.directions import lower_is_better
from proassist_lit.report.scoreboard import KEY_METRICS, reported_split
from proassist_lit.report.tables import PRUNED, UNFINISHED, Table

_NO_RUNS_IN = frozenset(
    ("checkpoints", "streams", "wandb", "tokenizer", "answers", "dashboard", ".hydra")
)
"""Folders of a run that are not searched for further runs."""

_SAYS_NOTHING = frozenset(("resume", "data.cache"))
"""Keys that decide nothing about what comes out."""


def multirun_table(sweep_dir: Path) -> Table:
    """Gather the jobs of a multirun into one table.

    A job is a subdirectory with a ``config.yaml``, a ``metrics.json`` or Hydra's ``.hydra``. A
    job without readable metrics is listed as ``running or failed``: a table of a sweep that is
    still going on is the one most often looked at.

    Args:
        sweep_dir: the directory of the multirun.

    Returns:
        Columns: ``job``, ``status``, every config key whose value is not the same in all jobs,
        then the main metrics on test, or on val where no job has a test. Rows in order of the
        jobs' names, numbers by value.

    Raises:
        ConfigError: ``sweep_dir`` is no directory.
    """
    sweep_dir = Path(sweep_dir)
    if not sweep_dir.is_dir():
        raise ConfigError(
            f"multirun_table: {str(sweep_dir)!r} is not a directory; give the directory that "
            "holds one subdirectory for each job."
        )
    jobs = sorted(filter(_is_job, sweep_dir.iterdir()), key=lambda job: _natural(job.name))
    metrics = [_read_metrics(job / "metrics.json") for job in jobs]
    configs = [_read_config(job / "config.yaml") for job in jobs]
    differing = _differing_keys([config for config in configs if config is not None])
    keys = [key for key in differing if key not in _SAYS_NOTHING]
    shown = _main_metrics(metrics)
    return Table(
        title=sweep_dir.resolve().name,
        columns=("job", "status", *keys, *shown),
        rows=tuple(
            (
                job.name,
                _status(job, result),
                *((config or {}).get(key) for key in keys),
                *((result or {}).get(key) for key in shown),
            )
            for job, result, config in zip(jobs, metrics, configs, strict=True)
        ),
        metric_columns=shown,
    )


def runs_table(
    root: Path,
    *,
    sort: str | None = None,
    metrics: Sequence[str] | None = None,
    keys: Sequence[str] = (),
) -> Table:
    """Gather all runs below a directory, jobs of multiruns and later evaluations included.

    Args:
        root: searched with all that is in it; links are not followed.
        sort: key of ``metrics.json`` by which the rows are ordered, the best first; runs without
            it come last. None for the first of the main metrics.
        metrics: keys of ``metrics.json`` to show; None for the main metrics on test, or on val
            where no run has a test; had or not. ``sort`` is shown in any case.
        keys: config keys to show beside those that differ.

    Returns:
        Columns: ``run`` (its path below ``root``), ``status``, ``keys``, every other config key
        whose value is not the same in all runs, then the metrics.

    Raises:
        ConfigError: ``root`` is no directory, holds no run, or no run has the metric to sort by,
            one to show, or a config key to show.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"{root}: is no directory; give one that holds runs, such as outputs.")
    runs = sorted(_find_runs(root), key=lambda run: _natural(str(run)))
    if not runs:
        raise ConfigError(
            f"{root}: holds no run (no folder in it with config.yaml or metrics.json); give the "
            "directory that train.py writes to, such as outputs."
        )
    found = [_read_metrics(run / "metrics.json") for run in runs]
    configs = [_read_config(run / "config.yaml") for run in runs]
    unknown = [
        *_unknown("--sort", [] if sort is None else [sort], "metric", found),
        *_unknown("--metrics", metrics or (), "metric", found),
        *_unknown("--keys", keys, "setting", configs),
    ]
    if unknown:
        raise ConfigError("\n".join(unknown))
    differing = _differing_keys([config for config in configs if config is not None])
    settings = tuple(dict.fromkeys((*keys, *(k for k in differing if k not in _SAYS_NOTHING))))
    main = _main_metrics(found)
    first = main[0] if sort is None else sort
    shown = tuple(dict.fromkeys((first, *(main if metrics is None else metrics))))
    sign = 1.0 if lower_is_better(first) else -1.0

    def place(number: int) -> float:
        value = (found[number] or {}).get(first, math.nan)
        return math.inf if math.isnan(value) else sign * value

    return Table(
        title=str(root),
        columns=("run", "status", *settings, *shown),
        rows=tuple(
            (
                os.path.relpath(runs[n], root),
                _status(runs[n], found[n]),
                *((configs[n] or {}).get(key) for key in settings),
                *((found[n] or {}).get(key) for key in shown),
            )
            for n in sorted(range(len(runs)), key=place)
        ),
        metric_columns=shown,
        lower_is_better=tuple(filter(lower_is_better, shown)),
    )


def _main_metrics(found: Iterable[Mapping[str, float] | None]) -> tuple[str, ...]:
    """Keys that runs are compared by, of the split that they report; all better when higher."""
    split = reported_split(key for one in found for key in one or ())
    return tuple(f"{split}/{name}" for name in KEY_METRICS)


def _unknown(
    option: str, names: Sequence[str], what: str, held: Sequence[Mapping[str, Any] | None]
) -> Iterator[str]:
    """A fault for every name that no run holds, where any run holds something."""
    known = sorted({key for one in held for key in one or ()})
    for name in names:
        if name not in known and known:
            ending = [k for k in known if k.endswith(f"/{name}") and not k.startswith("baseline/")]
            near = " or ".join(ending) or f"the nearest is {nearest(name, known)!r}"
            yield f"{option} {name}: no run has such a {what}; {near}{'?' if ending else '.'}"


def _status(run: Path, metrics: Mapping[str, float] | None) -> str:
    result = JobResult.read(run)
    if result is not None and result.pruned:
        return PRUNED
    return UNFINISHED if metrics is None and result is None else "done"


def _find_runs(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name not in _NO_RUNS_IN]
        path = Path(folder)
        if "config.yaml" in files or ("metrics.json" in files and path != root):
            yield path


def _is_job(path: Path) -> bool:
    return path.is_dir() and any(
        (path / name).exists() for name in ("config.yaml", "metrics.json", ".hydra")
    )


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which job 2 comes before job 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _read_metrics(path: Path) -> dict[str, float] | None:
    """Numbers of a ``metrics.json``; None if it cannot be read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a file half written, or none
        return None
    if not isinstance(raw, dict):
        return None
    return {
        key: float(value)
        for key, value in raw.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _read_config(path: Path) -> dict[str, str] | None:
    """Settings of a ``config.yaml`` under dotted keys, as text; None if it cannot be read."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _flat(raw) if isinstance(raw, Mapping) else None


def _flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    settings: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            settings |= _flat(value, f"{name}.")
        else:
            settings[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return settings


def _differing_keys(configs: list[dict[str, str]]) -> tuple[str, ...]:
    """Keys that are not the same in all configs, in order of first appearance."""
    names = dict.fromkeys(name for config in configs for name in config)
    return tuple(name for name in names if len({config.get(name) for config in configs}) > 1)
