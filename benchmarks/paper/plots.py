"""Pictures of the page, with ranges over seeds: against a setting, a threshold, or the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.paper.plan import Plan, Table
from benchmarks.paper.results import Spread, Study
from proassist_lit.errors import ConfigError
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
_MOST_MARKED = 40
"""Points of a line, beyond which they have no marks."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a picture shows.

    Attributes:
        name: of its file, without ending.
        title: above it.
        lines: the means, with a band from the least to the largest value over seeds.
        x_name: below the axis.
        log: whether x is logarithmic.
        shares: whether every number is in [0, 1]; losses are not, and have a logarithmic axis.
    """

    name: str
    title: str
    lines: Lines
    x_name: str
    log: bool = False
    shares: bool = True


def drawings(table: Table, study: Study, plan: Plan) -> Iterator[Drawing]:
    """The pictures of ``table`` for which there are runs."""
    name, title = table.name, table.title
    lines = threshold_lines(table, study, plan) if table.thresholds else {}
    if any(_changes(points) for points in lines.values()):
        x_name = "threshold of P(speak), val"
        yield Drawing(name=name, title=title, lines=lines, x_name=x_name)
    if table.curve and (lines := setting_lines(table, study, plan)):
        yield Drawing(
            name=name,
            title=title,
            lines=lines,
            x_name=table.curve_name or table.curve,
            log=table.log,
        )
    if table.learning and (lines := learning_lines(table, study, plan)):
        yield Drawing(
            name=f"{name}_learning", title=f"{title}: losses while training", lines=lines,
            x_name="step", shares=False,
        )  # fmt: skip


def learning_lines(table: Table, study: Study, plan: Plan) -> Lines:
    """The losses on train and val against the step, of rows that were trained."""
    lines: dict[str, dict[float, Spread]] = {}
    for row in (plan.rows[name] for name in table.rows if not plan.rows[name].of):
        for key in ("train", "val"):
            values: dict[float, list[float]] = {}
            for run in study.runs[row.name]:
                for step, loss in run.losses.get(key, ()):
                    values.setdefault(step, []).append(loss)
            if values:
                lines[f"{row.label}: {key}"] = {
                    step: Spread(tuple(losses)) for step, losses in values.items()
                }
    return lines


def setting_lines(table: Table, study: Study, plan: Plan) -> Lines:
    """The first two metrics of ``table`` against its setting; of rows that were run.

    Raises:
        ConfigError: of a row with runs none has the setting.
    """
    lines: dict[str, dict[float, Spread]] = {}
    for metric in table.metrics[:2]:
        for row in table.rows:
            spread = study.spread(row, metric)
            if spread is not None:
                values = (run.values.get(table.curve) for run in study.runs[row])
                x = next((value for value in values if value is not None), None)
                if x is None:
                    raise ConfigError(
                        f"table {table.name}: kept runs of {row} have no {table.curve}, which it "
                        "is drawn against; run the row again."
                    )
                lines.setdefault(plan.metrics[metric], {})[x] = spread
    return lines


def threshold_lines(table: Table, study: Study, plan: Plan) -> Lines:
    """The metrics of ``table`` against the threshold of P(speak), on val."""
    curves = [run.thresholds for run in study.runs[table.rows[0]]]
    lines: dict[str, dict[float, Spread]] = {}
    for metric in table.metrics:
        for theta in sorted({theta for curve in curves for theta in curve}):
            values = tuple(
                curve[theta][metric] for curve in curves if metric in curve.get(theta, {})
            )
            if values:
                lines.setdefault(plan.metrics[metric], {})[theta] = Spread(values)
    return lines


def _changes(points: Mapping[float, Spread]) -> bool:
    """Whether a line has anything to show: one that is flat to three digits is told in words."""
    return len({str(spread) for spread in points.values()}) > 1


def draw(drawing: Drawing) -> bytes:
    """Its PNG."""
    lines = drawing.lines
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
        mark = "o" if len(places) <= _MOST_MARKED else ""
        axes.plot(places, means, color=colour, marker=mark, markersize=3.5, label=name)
    if drawing.log:
        axes.set_xscale("log")
        places = sorted({x for points in lines.values() for x in points})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    if drawing.shares:
        axes.set_ylim(-0.03, 1.03)
    else:  # losses fall far at first, and what comes then would look all the same
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(drawing.x_name, fontsize=TEXT_PT)
    axes.set_ylabel("share" if drawing.shares else "loss (log scale)", fontsize=TEXT_PT)
    axes.set_title(drawing.title, fontsize=TEXT_PT + 1, loc="left")
    axes.legend(fontsize=SMALL_PT, frameon=True, framealpha=0.85, edgecolor="white")
    return encode(figure)


def seeds_of(lines: Lines) -> Sequence[int]:
    """Numbers of seeds that the points rest on, each once."""
    return sorted({len(s.values) for points in lines.values() for s in points.values()})
