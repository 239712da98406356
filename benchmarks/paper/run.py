"""One run of the study: what the page needs of it, read from its directory or from a kept line."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.paper.plan import Plan, Row
from proassist_lit.errors import ConfigError
from proassist_lit.report.curves import read_curves
from proassist_lit.report.scoreboard import reported_split

BASELINES = ("blind", "blind_zeros", "clock", "always_speak", "always_silent")
"""Those who do not look, in the order of the page."""

_DIGITS = 6
"""Of kept numbers, after the point."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run that came to its end.

    Attributes:
        row: of the plan.
        seed: of training.
        split: that is reported: test where there is one.
        metrics: of that split, by key without it; a baseline's begins with ``baseline/NAME/``.
        settings: what decided the result; empty if it was run by hand.
        commit: of the sources.
        started: date and time, UTC.
        cpu: name of the processor.
        cores: processors of the machine that the study may use.
        threads: of the run.
        at_once: runs at a time.
        seconds: it took, streams evaluated included.
        machine: as the run itself noted it.
        versions: of torch, Lightning and Transformers.
        similarity: name of what words were compared with.
        size: ``streams`` of the split, their reference ``utterances`` and ``corrections``.
        values: of the keys of the configuration that a table is drawn against.
        thresholds: metrics on val by threshold of P(speak), if a table shows them.
        losses: ``train`` and ``val``: step and loss, if a table draws them.
    """

    row: str
    seed: int
    split: str
    metrics: Mapping[str, float]
    settings: Sequence[str] = ()
    commit: str | None = None
    started: str | None = None
    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None
    at_once: int | None = None
    seconds: float | None = None
    machine: str | None = None
    versions: str | None = None
    similarity: str | None = None
    size: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[float, Mapping[str, float]] = field(default_factory=dict)
    losses: Mapping[str, Points] = field(default_factory=dict)

    def is_of(self, row: Row) -> bool:
        """Whether it was run with the settings that ``row`` has."""
        own = row.settings
        return not self.settings or list(self.settings[: len(own)]) == own

    def extra(self, row: Row) -> Sequence[str]:
        """Its settings beyond those of ``row``."""
        return self.settings[len(row.settings) :]

    def to_line(self) -> str:
        """One line of JSON, without what it does not have."""
        kept = {name: value for name, value in asdict(self).items() if value not in (None, {}, ())}
        return json.dumps(_rounded(kept)) + "\n"


def run_from_line(line: str) -> Run:
    """What ``Run.to_line`` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such line.
    """
    data = json.loads(line)
    known = {f.name for f in fields(Run)}
    run = Run(**{name: value for name, value in data.items() if name in known})
    thresholds = {
        float(theta): {name: float(value) for name, value in metrics.items()}
        for theta, metrics in run.thresholds.items()
    }
    metrics = {name: float(value) for name, value in run.metrics.items()}
    return Run(**{**vars(run), "metrics": metrics, "thresholds": thresholds})


def read_run(directory: Path, row: str, plan: Plan) -> Run:
    """The run in ``directory``, which is named after its seed.

    Raises:
        ConfigError: a file of it cannot be read, or its configuration lacks what the plan draws.
    """
    try:
        metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        machine = _read(directory / "machine.json") or {}
        notes = _read(directory / "notes.json") or {}
        split = reported_split(metrics)
        own = {name: machine.get(name) for name in _MACHINE}
        tables = [table for table in plan.tables if row in table.rows]
        return Run(
            row=row, seed=int(directory.name.removeprefix("seed")), split=split,
            metrics=_metrics(metrics, split, plan),
            settings=machine.get("settings", ()),
            commit=machine.get("commit") or notes.get("git commit"),
            machine=notes.get("machine"), versions=_versions(notes),
            similarity=metrics.get("similarity"), size=_size(directory, metrics, split),
            values={t.curve: float(_setting(directory, t.curve)) for t in tables if t.curve},
            thresholds=_thresholds(directory, plan) if any(t.thresholds for t in tables) else {},
            losses=(
                _losses(directory)
                if any(t.learning for t in tables) and not plan.rows[row].of
                else {}
            ),
            **own,
        )  # fmt: skip
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{directory}: {error}; run it again, or take it out of the study."
        ) from error


_MACHINE = ("started", "cpu", "cores", "threads", "at_once", "seconds")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _metrics(metrics: Mapping[str, Any], split: str, plan: Plan) -> Mapping[str, float]:
    """The numbers that the plan names, with those of every baseline, as far as there are any."""
    own = [name for name in plan.metrics if "/" not in name]
    names = [*plan.metrics, *(f"baseline/{other}/{name}" for other in BASELINES for name in own)]
    found = {}
    for name in names:
        *prefix, last = name.split("/")
        value = metrics.get("/".join([*prefix, split, last]))
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


def _size(directory: Path, metrics: Mapping[str, Any], split: str) -> Mapping[str, int]:
    """How much the metrics rest on; nothing if the run does not tell."""
    names = [f"{split}/utterance_num_{outcome}" for outcome in ("matched", "mismatched", "missed")]
    streams = _read(directory / "streams.json")
    if streams is None or not all(name in metrics for name in names):
        return {}
    size = {
        "streams": sum(stream["split"] == split for stream in streams),
        "utterances": int(sum(metrics[name] for name in names)),
    }
    if (corrections := f"{split}/utterance_num_correction") in metrics:
        size["corrections"] = int(metrics[corrections])
    return size


def _versions(notes: Mapping[str, Any]) -> str | None:
    names = ("torch", "lightning", "transformers")
    return ", ".join(f"{name} {notes[name]}" for name in names) if "torch" in notes else None


def _setting(directory: Path, key: str) -> Any:
    """A value of ``config.yaml``."""
    value: Any = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{directory / 'config.yaml'}: has no {key}; mend the plan.")
        value = value[part]
    return value


def _thresholds(directory: Path, plan: Plan) -> Mapping[float, Mapping[str, float]]:
    """Metrics on val by threshold of P(speak), with the threshold of updates that was tried most.

    Those thresholds that every run is streamed with are there; what the calibration adds differs
    from run to run.
    """
    points = [p for p in _read(directory / "sweep.json") or () if p["split"] == "val"]
    if not points:
        return {}
    usual = statistics.mode(point["theta_dst"] for point in points)
    asked = set(_setting(directory, "evaluation.sweep_speak"))
    return {
        point["theta_speak"]: {k: v for k, v in point["metrics"].items() if k in plan.metrics}
        for point in sorted(points, key=lambda p: float(p["theta_speak"]))
        if point["theta_dst"] == usual and point["theta_speak"] in asked
    }


def _losses(directory: Path) -> Mapping[str, Points]:
    curves = read_curves(directory / "metrics.csv")
    return {
        name: [(step + 1, loss) for step, loss in curves[f"{name}/loss"]]
        for name in ("train", "val")
        if curves.get(f"{name}/loss")
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value
