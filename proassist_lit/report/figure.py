"""Pictures drawn with matplotlib: one look, no global state, small files."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from PIL import Image

from proassist_lit.report.dashboard import Chart

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#6B6B6B", "#D9D9D9"
"""Okabe and Ito's colours, which colour-blind eyes tell apart, and two greys."""

WIDTH_IN = 9.0
"""Width of every picture of a stream, inches; text is readable at 80 pixels an inch."""

TEXT_PT, SMALL_PT = 8.5, 7.5

_PIXELS_PER_IN = 160  # twice what a page shows, for dense screens
_SHADES = 5  # of every colour, from white; enough for smooth edges, and the file stays small
_FONT = FontProperties(family="DejaVu Sans")  # comes with matplotlib


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty white figure of its own, known to nobody else."""
    return Figure(figsize=(width_in, height_in), dpi=_PIXELS_PER_IN, facecolor="white")


def encode(figure: Figure) -> bytes:
    """PNG with few colours; every text of ``figure`` is drawn as it stands, letter by letter."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_fontfamily("DejaVu Sans")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(pixels).convert("RGB")
    packed = io.BytesIO()
    picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(
        packed, "PNG", optimize=True
    )
    return packed.getvalue()


@cache
def _palette() -> Image.Image:
    """White, and every colour above in shades: none is taken for its neighbour."""
    colours = (BLACK, GREY, PALE, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE)
    values = [255, 255, 255]
    for colour in colours:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        for shade in range(1, _SHADES + 1):
            values += [round(255 + (value - 255) * shade / _SHADES) for value in rgb]
    palette = Image.new("P", (1, 1))
    palette.putpalette(values)
    return palette


def shown(text: str, most: int | None = None) -> str:
    """``text`` on one line, at most so many letters; one that the font lacks becomes a box."""
    line = " ".join(text.split())
    if most is not None and len(line) > most:
        line = line[: most - 1].rstrip() + "…"
    return "".join(letter if _is_drawable(letter) else "□" for letter in line)


@cache
def _is_drawable(letter: str) -> bool:
    return bool(get_font(findfont(_FONT)).get_char_index(ord(letter)))


def tidy(axes: Axes, *, y_name: str = "", bottom: bool = True) -> None:
    """No box, faint grid, small letters; ``bottom``: the axis below is labelled."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.grid(visible=True, color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL_PT, color=GREY, labelbottom=bottom, length=2.5)
    if y_name:
        axes.set_ylabel(y_name, fontsize=TEXT_PT)


def draw_chart(chart: Chart) -> bytes:
    """``chart`` as a PNG."""
    figure = new_figure(3.6, 5.4)
    axes = figure.add_axes((0.12, 0.14, 0.84, 0.76))
    tidy(axes, y_name=chart.y_name)
    colours = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, YELLOW)
    styles = ("-", "--", "-.", ":")
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for number, (name, points) in enumerate(chart.lines.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=colours[number % len(colours)],
            linestyle=styles[number % len(styles)],
            linewidth=1.5,
            marker="o" if len(points) <= 30 else None,
            markersize=3.5,
            label=shown(name, 40),
        )
    axes.set_xlabel(chart.x_name, fontsize=TEXT_PT)
    axes.set_title(shown(chart.title, 80), fontsize=TEXT_PT + 1, loc="left")
    axes.set_ylim(-0.03, max(1.03, axes.get_ylim()[1]))
    if chart.lines:
        axes.legend(fontsize=SMALL_PT, frameon=True, framealpha=0.85, edgecolor="white")
    return encode(figure)
