"""Shows dashboards through Lightning's loggers: numbers in ``metrics.csv``, all in TensorBoard."""

from __future__ import annotations

import io

import numpy as np
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from proassist_lit.report.dashboard import Dashboard
from proassist_lit.report.figure import draw_chart

MOST_ROWS = 500
"""Longer tables are cut in TensorBoard, which shows them as text."""


class CsvSink:
    """A sink that adds a row of numbers to ``metrics.csv``.

    Args:
        logger: writes the file.
    """

    def __init__(self, logger: CSVLogger) -> None:
        self._logger = logger

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Add the row."""
        self._logger.log_metrics(dict(dashboard.numbers), step=step)
        self._logger.save()

    def finish(self, *, failed: bool = False) -> None:
        """Nothing is open."""


class TensorBoardSink:
    """A sink that writes TensorBoard events: numbers, pictures, charts drawn, tables as text.

    Args:
        logger: owns the event file.
    """

    def __init__(self, logger: TensorBoardLogger) -> None:
        self._logger = logger

    def show(self, dashboard: Dashboard, step: int) -> None:
        """Write and flush all of ``dashboard``."""
        writer = self._logger.experiment
        self._logger.log_metrics(dict(dashboard.numbers), step=step)
        for name, picture in dashboard.pictures.items():
            writer.add_image(name, _pixels(picture.png), step, dataformats="HWC")
        for name, chart in dashboard.charts.items():
            writer.add_image(f"charts/{name}", _pixels(draw_chart(chart)), step, dataformats="HWC")
        for name, table in dashboard.tables.items():
            text = table.first(MOST_ROWS).to_markdown()
            if len(table.rows) > MOST_ROWS:
                text += (
                    f"\n\n{MOST_ROWS} of {len(table.rows)} rows; all are in dashboard/{name}.csv"
                )
            writer.add_text(f"tables/{name}", text, step)
        words = {name: v for name, v in dashboard.metrics.items() if isinstance(v, str)}
        for name, value in words.items():
            writer.add_text(name, value, step)
        writer.flush()

    def finish(self, *, failed: bool = False) -> None:
        """Close the file."""
        self._logger.finalize("failed" if failed else "success")


def _pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
