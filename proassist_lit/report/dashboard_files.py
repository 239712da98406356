"""Shows dashboards as files of the run directory: ``metrics.json``, CSV and PNG."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from proassist_lit.atomic import replacing
from proassist_lit.report.dashboard import Dashboard, DataTable
from proassist_lit.report.figure import draw_chart
from proassist_lit.run_directory import RunDirectory


class DashboardFiles:
    """A sink that writes into the run directory.

    Pictures, tables and charts lie below ``dashboard/``, those of the latest evaluation: a whole
    one takes away what earlier ones left there. ``metrics.json`` is written at the end, with the
    numbers of the whole evaluation.

    Args:
        run: the directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._folder = run, run.path / "dashboard"

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Write all of ``dashboard``; each file is whole at any moment."""
        tables = dict(dashboard.tables)
        for name, chart in dashboard.charts.items():
            rows = tuple((line, x, y) for line, points in chart.lines.items() for x, y in points)
            tables[name] = DataTable(columns=("line", chart.x_name, chart.y_name), rows=rows)
        pictures = {name: draw_chart(chart) for name, chart in dashboard.charts.items()}
        pictures |= {name: picture.png for name, picture in dashboard.pictures.items()}
        files = {f"{name}.csv": table.to_csv().encode() for name, table in tables.items()}
        files |= {f"{name}.png": png for name, png in pictures.items()}
        for name, content in files.items():
            with replacing(self._folder / name) as temporary:
                temporary.write_bytes(content)
        if dashboard.is_whole:
            self._remove_but(files)
            self._run.write_metrics(dashboard.metrics)

    def finish(self, *, failed: bool = False) -> None:
        """Nothing is open."""

    def _remove_but(self, names: Container[str]) -> None:
        """Remove tables and pictures of other names; links are nobody's of ours."""
        for folder, _, found in os.walk(self._folder):  # which follows no links
            for path in (Path(folder, name) for name in found):
                name = path.relative_to(self._folder).as_posix()
                if path.suffix in (".csv", ".png") and name not in names and not path.is_symlink():
                    path.unlink(missing_ok=True)
