"""A small self-contained page without script: its frame and colours, and charts as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from proassist_lit.report.data_statistics import Bin

WIDTH, HEIGHT = 460, 210
"""Size of a chart in its own units; it grows with the page."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 42


def render_page(title: str, body: str, *, css: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: markup, already escaped.
        css: rules beyond those of every page.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{clean(title)}</title>\n<style>{_CSS}{css}</style>\n</head>\n<body>\n"
        f"<h1>{clean(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def clean(text: str) -> str:
    """``text`` as markup that shows it; lone surrogates, which UTF-8 cannot hold, become ``?``."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text; the first column names the rows."""
    top = "".join(f"<th scope=col>{clean(cell)}</th>" for cell in head)
    body = "\n".join(
        "<tr>"
        + f"<th scope=row>{clean(row[0])}</th>"
        + "".join(f"<td>{clean(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=scroll><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table></div>"
    )


def bin_label(bin_: Bin, *, whole: bool) -> str:
    """The values of a bin, as a person writes them: ``5–9`` for counts, ``0.5–1`` otherwise."""
    if bin_.high is None:
        return f"≥ {number(bin_.low)}"
    if not whole:
        return f"{number(bin_.low)}–{number(bin_.high)}"
    last = bin_.high - 1
    return number(bin_.low) if last == bin_.low else f"{number(bin_.low)}–{number(last)}"


def number(value: float) -> str:
    """A number in four or more digits, thousands apart; ``–`` for none."""
    if not math.isfinite(value):
        return "–"
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) < 1000 else number(round(value))


def svg_histogram(bins: Sequence[Bin], *, unit: str, whole: bool) -> str:
    """Bars of a histogram.

    Args:
        bins: the bars, in order.
        unit: what the values are, under the axis.
        whole: whether the values are counts.
    """
    if not bins:
        return "<p class=soft>no values</p>"
    scale = _Scale(0, len(bins), max(bin_.count for bin_ in bins))
    parts = [_y_axis(scale)]
    # Labels of at most eight bars, or they would run into each other.
    step = -(-len(bins) // 8)
    for i, bin_ in enumerate(bins):
        left, right = scale.x(i) + 1, scale.x(i + 1) - 1
        top, bottom = scale.y(bin_.count), scale.y(0)
        label = bin_label(bin_, whole=whole)
        kind = "bar tail" if bin_.high is None else "bar"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}"><title>{label} {clean(unit)}: {bin_.count}'
            "</title></rect>"
        )
        if bin_.high is None or i % step == 0:
            text = f"≥{number(bin_.low)}" if bin_.high is None else number(bin_.low)
            x, anchor = (right, "end") if bin_.high is None else (left, "start")
            if bin_.high is not None and bins[-1].high is None and i + step >= len(bins):
                continue  # the tail's label stands here
            parts.append(_label(x, bottom + 14, text, anchor))
    return _svg(parts, x_name=unit)


def svg_line(points: Sequence[tuple[float, float]], *, x_name: str, y_name: str) -> str:
    """A line through ``points`` (ascending in x, y >= 0)."""
    low, high = points[0][0], points[-1][0]
    scale = _Scale(low, high if high > low else low + 1, max(y for _, y in points))
    parts = [_y_axis(scale)]
    for i, anchor in enumerate(("start", "middle", "middle", "middle", "end")):
        x = low + (scale.x_high - low) * i / 4
        parts.append(_label(scale.x(x), scale.y(0) + 14, number(round(x, 1)), anchor))
    path = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    parts.append(_label(_LEFT, _TOP - 4, y_name, "start"))
    return _svg(parts, x_name=x_name)


@dataclass(frozen=True)
class _Scale:
    """From values to places on a chart; y begins at 0."""

    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - value / (self.y_high or 1) * (HEIGHT - _TOP - _BOTTOM)


def _y_axis(scale: _Scale) -> str:
    marks = sorted({0, scale.y_high // 2, scale.y_high})
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{scale.y(mark):.1f}" '
        f'y2="{scale.y(mark):.1f}"/>' + _label(_LEFT - 6, scale.y(mark) + 4, number(mark), "end")
        for mark in marks
    )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{clean(text)}</text>'


def _svg(parts: Sequence[str], *, x_name: str) -> str:
    name = _label(WIDTH - _RIGHT, HEIGHT - 8, x_name, "end")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{clean(x_name)}">'
        f"{''.join(parts)}{name}</svg>"
    )


# Okabe and Ito's palette, as in report.css: colour-blind readers can tell it apart.
_CSS = """
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #fff; --text: #1c1d1f; --soft: #5c6066;
  --line: #dcdee1; --speak: #0072b2; --dst: #8a5a00; --user: #00795a; --fault: #b03000; }
@media (prefers-color-scheme: dark) { :root { --bg: #131517; --card: #1b1e21; --text: #e7e9eb;
  --soft: #a0a6ad; --line: #33383d; --speak: #56b4e9; --dst: #e6a545; --user: #2fc596;
  --fault: #ff7f50; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(.9rem, 2.5vw, 2rem) 4rem; max-width: 1200px;
  background: var(--bg); color: var(--text); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.soft { color: var(--soft); font-size: 13.5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: .28rem 1.1rem .28rem 0; text-align: right; vertical-align: top; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 500; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
figure { margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11px; fill: var(--soft); }
.grid { stroke: var(--line); }
.bar { fill: var(--speak); }
.tail { fill-opacity: .45; stroke: var(--speak); stroke-dasharray: 3 2; }
.line { fill: none; stroke: var(--speak); stroke-width: 2; stroke-linejoin: round; }
.fault { color: var(--fault); }
"""
