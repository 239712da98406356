"""The table of a run's numbers: metrics down, val, test and every baseline across.

The reported split is test, or val of data without a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from proassist_lit.metrics.directions import Direction, direction, lower_is_better

HEADLINE = (
    "utterance_f1",
    "content_accuracy",
    "dst_update_f1",
    "dst_joint_goal_accuracy",
    "speak_f1",
    "utterance_precision",
    "utterance_recall",
    "utterance_time_difference_s",
)
"""The metrics shown first, in this order."""

KEY_METRICS = HEADLINE[:5]
"""The metrics of the one line under the title."""

BASELINES = ("always_silent", "always_speak", "clock", "blind", "blind_zeros")
"""Order of the baselines' columns; others follow by name."""

_SPELLING = {
    "f1": "F1", "dst": "DST", "ap": "AP", "auroc": "AUROC", "ece": "ECE", "lm": "LM",
    "bleu": "BLEU", "rouge": "ROUGE", "l": "L", "cider": "CIDEr", "meteor": "METEOR",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One metric over all columns.

    Attributes:
        name: the metric as in ``metrics.json``, without its split.
        values: one a column; None where it was not measured (or is not a number).
        best: whether the value is the best of the reported split and its baselines; beside test
            val is another data set and never competes. All False where fewer than two compete.
        earlier: the value on that split of the run to compare with.
        change: own value there minus ``earlier``; None where one of the two is missing.
        better: whether the change is one for the better; None without a change, or where
            neither direction is better.
    """

    name: str
    values: tuple[float | None, ...]
    best: tuple[bool, ...]
    earlier: float | None = None
    change: float | None = None
    better: bool | None = None


@dataclass(frozen=True, kw_only=True)
class KeyResult:
    """A main metric on the reported split beside its best baseline and an earlier run."""

    name: str
    value: float
    baseline: str
    baseline_value: float | None
    change: float | None = None
    better: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Scoreboard:
    """All numbers of a run, arranged; nothing of ``metrics.json`` is left out.

    Attributes:
        columns: ``val``, ``test``, then the baselines.
        headline: the metrics to read first.
        rest: every other metric of the columns.
        settings: thresholds, similarity model and other words: (name, value).
        others: keys that belong to no column, e.g. ``train/loss``: (key, value).
        key_results: main metrics on the reported split.
        split: the reported one.
    """

    columns: tuple[str, ...]
    headline: tuple[ScoreRow, ...]
    rest: tuple[ScoreRow, ...]
    settings: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, float | str], ...]
    key_results: tuple[KeyResult, ...]
    split: str


def make_scoreboard(
    metrics: Mapping[str, float | str],
    earlier: Mapping[str, float | str] | None = None,
    earlier_name: str = "",
) -> Scoreboard:
    """Arrange a flat ``metrics.json``.

    Args:
        metrics: values by key; ``split/name`` or ``baseline/<baseline>/split/name``.
        earlier: the ``metrics.json`` of a run to compare with; None for none.
        earlier_name: its name, beside the settings in which it differs.

    Returns:
        The scoreboard. Baselines measured on another split than the reported one are among
        ``others``.
    """
    split = reported_split(metrics)
    cells: dict[str, dict[str, float]] = {}
    settings: dict[str, dict[str, str]] = {}
    others: list[tuple[str, float | str]] = []
    for key, value in metrics.items():
        column, name = _place(key, split)
        if _is_setting(name, value):
            settings.setdefault(name, {})[column or key.rpartition("/")[0]] = _text(value)
        elif column is None:
            others.append((key, value))
        else:
            cells.setdefault(name, {})[column] = float(value)
    earlier_cells, earlier_settings = _reported(earlier or {}, split)
    for name in earlier_cells:
        cells.setdefault(name, {})

    columns = _ordered({column for row in cells.values() for column in row})
    matched_nothing = {
        column for column, recall in cells.get("utterance_recall", {}).items() if recall == 0
    }
    rows = {
        name: _compared(
            _row(name, row, columns, matched_nothing, split),
            row.get(split),
            earlier_cells.get(name),
        )
        for name, row in cells.items()
    }
    first = [name for name in HEADLINE if name in rows]
    return Scoreboard(
        columns=columns,
        headline=tuple(rows[name] for name in first),
        rest=tuple(rows[name] for name in sorted(set(rows) - set(first))),
        settings=tuple(
            (name, _joined(settings.get(name, {}), earlier_settings.get(name), earlier_name, split))
            for name in {**settings, **earlier_settings}
        ),
        others=tuple(others),
        key_results=tuple(
            _key_result(rows[name], columns, split)
            for name in KEY_METRICS
            if name in rows and cells[name].get(split) is not None
        ),
        split=split,
    )


def reported_split(metrics: Iterable[str]) -> str:
    """``test`` if any key of ``metrics.json`` is of it, else ``val``."""
    return "test" if any(key.startswith("test/") for key in metrics) else "val"


def spoken_name(name: str) -> str:
    """A metric's name as a person writes it: ``dst_update_f1`` becomes ``DST update F1``."""
    words = [_SPELLING.get(word, word) for word in name.split("_")]
    if len(words) > 1 and words[-1] in ("s", "ms"):
        words[-1] = f"({words[-1]})"
    return " ".join(words)


def _place(key: str, split: str) -> tuple[str | None, str]:
    """Column (None without one) and metric name of a key."""
    parts = key.split("/")
    if len(parts) >= 4 and parts[0] == "baseline" and parts[2] == split:
        return parts[1], "/".join(parts[3:])
    if len(parts) >= 2 and parts[0] in ("val", "test"):
        return parts[0], "/".join(parts[1:])
    return None, parts[-1]


def _ordered(columns: set[str]) -> tuple[str, ...]:
    known = ("val", "test", *BASELINES)
    return tuple(sorted(columns, key=lambda c: (known.index(c) if c in known else len(known), c)))


def _row(
    name: str,
    row: Mapping[str, float],
    columns: tuple[str, ...],
    matched_nothing: set[str],
    split: str,
) -> ScoreRow:
    values = tuple(_finite(row.get(column)) for column in columns)
    lower = lower_is_better(name)
    # Who matches nothing makes no redundant remark and is never late: no merit in that.
    scores = {
        i: -abs(value) if lower else value
        for i, (column, value) in enumerate(zip(columns, values, strict=True))
        if value is not None
        and (column != "val" or split == "val")
        and not (lower and column in matched_nothing)
    }
    if len(scores) < 2 or direction(name) is Direction.NEITHER:
        return ScoreRow(name=name, values=values, best=(False,) * len(columns))
    top = max(scores.values())
    return ScoreRow(
        name=name,
        values=values,
        best=tuple(
            i in scores and math.isclose(scores[i], top, rel_tol=1e-9, abs_tol=1e-12)
            for i in range(len(columns))
        ),
    )


def _is_setting(name: str, value: float | str) -> bool:
    """Whether this is no result; ``name`` may begin with that of a data set, which says nothing."""
    return isinstance(value, str) or name.rpartition("/")[2].startswith("theta_")


def _reported(
    metrics: Mapping[str, float | str], split: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Values on ``split``, and settings on it or of the whole run, by name."""
    cells, settings = {}, {}
    for key, value in metrics.items():
        column, name = _place(key, split)
        if column not in (split, None) or (column is None and "/" in key):
            continue
        if _is_setting(name, value):
            settings[name] = _text(value)
        elif column == split:
            cells[name] = float(value)
    return cells, settings


def _compared(row: ScoreRow, own: float | None, earlier: float | None) -> ScoreRow:
    """``row`` beside the value of an earlier run."""
    own, earlier = _finite(own), _finite(earlier)
    if own is None or earlier is None:
        return replace(row, earlier=earlier)
    gain = own - earlier
    if lower_is_better(row.name):
        gain = abs(earlier) - abs(own)
    same = math.isclose(gain, 0, abs_tol=1e-12)
    return replace(
        row,
        earlier=earlier,
        change=own - earlier,
        better=None if same or direction(row.name) is Direction.NEITHER else gain > 0,
    )


def _key_result(row: ScoreRow, columns: tuple[str, ...], split: str) -> KeyResult:
    by_column = dict(zip(columns, row.values, strict=True))
    value = by_column.pop(split)
    by_column.pop("val", None)
    known = {column: v for column, v in by_column.items() if v is not None}
    best = max(known, key=lambda column: known[column], default="")
    return KeyResult(
        name=row.name,
        value=math.nan if value is None else value,
        baseline=best,
        baseline_value=known.get(best),
        change=row.change,
        better=row.better,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _joined(
    by_column: Mapping[str, str], earlier: str | None, earlier_name: str, split: str
) -> str:
    """One value if all columns agree, else each with its column; and that of an earlier run."""
    if len(set(by_column.values())) == 1:
        own = next(iter(by_column.values()))
    else:
        own = ", ".join(f"{column} {value}" for column, value in by_column.items())
    if earlier is None or earlier == by_column.get(split, own):
        return own
    other = f"{earlier_name or 'the earlier run'}: {earlier}"
    return f"{own} ({other})" if own else other
