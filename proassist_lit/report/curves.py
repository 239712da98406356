"""Training curves, read back from the metrics.csv that Lightning's CSVLogger writes."""

from __future__ import annotations

import csv
from pathlib import Path

NOT_CURVES = frozenset({"", "step", "epoch"})


def read_curves(metrics_csv: Path) -> dict[str, list[tuple[int, float]]]:
    """Read every logged value of a ``metrics.csv``.

    The file is sparse: a row holds what was logged in one call, and empty cells for the rest. A
    run that is still going on may have left half a row; what cannot be read is skipped, because
    a report of a broken run is worth more than none.

    Args:
        metrics_csv: columns ``step``, ``epoch`` and one for each name.

    Returns:
        (step, value) by name, in order of step; the later row wins where a step occurs twice
        (a resumed run). Empty if the file is missing or empty. ``nan`` stays ``nan``: a diverged
        loss should be seen.
    """
    try:
        text = Path(metrics_csv).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    curves: dict[str, dict[int, float]] = {}
    for row in csv.DictReader(text.replace("\0", "").splitlines()):
        step = _float(row.get("step"))
        if step is None or step != step or step in (float("inf"), float("-inf")):
            continue
        for name, cell in row.items():
            value = _float(cell)
            # Cells beyond the header come as a list under the key None; a list is no number.
            if name not in NOT_CURVES and value is not None:
                curves.setdefault(name, {})[int(step)] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def _float(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) else None
    except ValueError:
        return None
