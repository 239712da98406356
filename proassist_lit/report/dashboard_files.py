"""Shows dashboards as files of the run directory: ``metrics.json``, CSV and PNG."""

from __future__ import annotations

from pathlib import Path

from proassist_lit.atomic import replacing, write_text
from proassist_lit.report.dashboard import Dashboard, DataTable
from proassist_lit.report.figure import draw_chart
from proassist_lit.run_directory import RunDirectory


class DashboardFiles:
    """A sink that writes into the run directory.

    Pictures, tables and charts lie below ``dashboard/``, those of the latest evaluation;
    ``metrics.json`` is written at the end, with the numbers of the whole evaluation.

    Args:
        run: the directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._folder = run, run.path / "dashboard"

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Write all of ``dashboard``; each file is whole at any moment."""
        for name, table in dashboard.tables.items():
            write_text(self._folder / f"{name}.csv", table.to_csv())
        for name, chart in dashboard.charts.items():
            rows = tuple((line, x, y) for line, points in chart.lines.items() for x, y in points)
            table = DataTable(columns=("line", chart.x_name, chart.y_name), rows=rows)
            write_text(self._folder / f"{name}.csv", table.to_csv())
            _write_bytes(self._folder / f"{name}.png", draw_chart(chart))
        for name, picture in dashboard.pictures.items():
            _write_bytes(self._folder / f"{name}.png", picture.png)
        if dashboard.is_whole:
            self._run.write_metrics(dashboard.metrics)

    def finish(self, *, failed: bool = False) -> None:
        """Nothing is open."""


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
