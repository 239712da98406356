"""Pictures of the page: numbers against a setting or a threshold, with their range over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.paper.plan import Plan, Table
from benchmarks.paper.results import Spread, Study, threshold_curve
from proassist_lit.report.figure import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SMALL_PT,
    TEXT_PT,
    VERMILLION,
    encode,
    new_figure,
    tidy,
)

Lines = Mapping[str, Mapping[float, Spread]]
"""By name of a line: x to the number over seeds."""

_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE)


def setting_lines(table: Table, study: Study, plan: Plan) -> Lines:
    """The first two metrics of ``table`` against its setting; of rows that were run."""
    lines: dict[str, dict[float, Spread]] = {}
    for metric in table.metrics[:2]:
        for row in table.rows:
            spread = study.spread(row, metric)
            if spread is not None:
                x = float(study.runs[row][0].setting(table.curve))
                lines.setdefault(plan.metrics[metric], {})[x] = spread
    return lines


def threshold_lines(table: Table, study: Study, plan: Plan) -> Lines:
    """The metrics of ``table`` against the threshold of P(speak), on val."""
    curves = [threshold_curve(run) for run in study.runs[table.rows[0]]]
    lines: dict[str, dict[float, Spread]] = {}
    for metric in table.metrics:
        for theta in sorted({theta for curve in curves for theta in curve}):
            values = tuple(
                curve[theta][metric] for curve in curves if metric in curve.get(theta, {})
            )
            if values:
                lines.setdefault(plan.metrics[metric], {})[theta] = Spread(values)
    return lines


def draw(lines: Lines, *, title: str, x_name: str, log: bool = False) -> bytes:
    """PNG of ``lines``: the means, and a band from the least to the largest value over seeds."""
    figure = new_figure(3.4, 6.0)
    axes = figure.add_axes((0.1, 0.15, 0.86, 0.75))
    tidy(axes)
    for colour, (name, points) in zip(_COLOURS, lines.items(), strict=False):
        places = sorted(points)
        means = [points[x].mean for x in places]
        axes.fill_between(
            places,
            [min(points[x].values) for x in places],
            [max(points[x].values) for x in places],
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        axes.plot(places, means, color=colour, marker="o", markersize=3.5, label=name)
    if log:
        axes.set_xscale("log")
        places = sorted({x for points in lines.values() for x in points})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x_name, fontsize=TEXT_PT)
    axes.set_title(title, fontsize=TEXT_PT + 1, loc="left")
    axes.legend(fontsize=SMALL_PT, frameon=True, framealpha=0.85, edgecolor="white")
    return encode(figure)


def seeds_of(lines: Lines) -> Sequence[int]:
    """Numbers of seeds that the points rest on, each once."""
    return sorted({len(s.values) for points in lines.values() for s in points.values()})
