"""Shows dashboards in W&B."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from proassist_lit.lit.wandb_run import STEP, staging_in, unstopped
from proassist_lit.report.dashboard import Chart, Dashboard, DataTable, Picture

MOST_ROWS = 2000
"""Longer tables are cut; the CSV file has all rows."""

NOT_OVER_STEPS = ("baseline/", "best/")
"""Beginnings of metrics that have one value in a run: they stand in its summary alone."""


class WandbSink:
    """A sink that logs to a W&B run.

    Metrics are logged under their own names, tables under ``tables/``, charts under ``charts/``,
    pictures under ``timelines/`` and ``steps/``. Baselines and words stand in the summary, so
    that the charts stay those of the model. What W&B raises is warned of.

    Args:
        run: the started W&B run.
        folder: directory of the run; what W&B would keep in the home directory lies there.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._staging = run, folder / "wandb"

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Log one row, and update the summary."""
        summary: dict[str, Any] = {
            name: value
            for name, value in dashboard.metrics.items()
            if isinstance(value, str) or name.startswith(NOT_OVER_STEPS)
        }
        row: dict[str, Any] = {STEP: step}
        row |= {name: v for name, v in dashboard.metrics.items() if name not in summary}
        with unstopped(), staging_in(self._staging):
            for name, picture in dashboard.pictures.items():
                row[name] = _image(picture, step)
            for name, chart in dashboard.charts.items():
                row[f"charts/{name}"] = _plot(chart)
            for name, table in dashboard.tables.items():
                row[f"tables/{name}"] = _table(table)
                num_left_out = len(table.rows) - MOST_ROWS
                if num_left_out > 0:
                    summary[f"tables/{name}_rows_left_out"] = num_left_out
            self._run.log(row)
            if summary:
                self._run.summary.update(summary)

    def finish(self, *, failed: bool = False) -> None:
        """Close the run: the next job of a multirun begins one of its own."""
        with unstopped():
            self._run.finish(exit_code=int(failed))


def _image(picture: Picture, step: int) -> Any:
    import wandb

    return wandb.Image(
        Image.open(io.BytesIO(picture.png)), caption=f"{picture.caption}, step {step}"
    )


def _table(table: DataTable) -> Any:
    import wandb

    shown = table.first(MOST_ROWS)
    return wandb.Table(
        columns=list(shown.columns), data=[list(row) for row in shown.rows], allow_mixed_types=True
    )


def _plot(chart: Chart) -> Any:
    import wandb

    return wandb.plot.line_series(
        xs=[[x for x, _ in points] for points in chart.lines.values()],
        ys=[[y for _, y in points] for points in chart.lines.values()],
        keys=list(chart.lines),
        title=chart.title,
        xname=chart.x_name,
    )
