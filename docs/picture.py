"""A picture of the documentation: boxes, words and lines that light and dark pages both show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

INK = "#7b828c"  # legible on white and on slate alike
DARK = "#17212b"  # on the pale boxes
GREY, PALE = "#aab2bd", "#d9dee4"
BLUE, GREEN, ORANGE, VIOLET = "#9cc9f5", "#9fdcb4", "#f8c886", "#d3b5f1"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass
class Picture:
    """An SVG file under way."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, w: float, h: float, fill: str, *,
        text: str = "", size: float = 12, stroke: str = "none", dash: bool = False,
    ) -> None:  # fmt: skip
        """A rounded box with a word in it."""
        dashes = ' stroke-dasharray="4 3"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.5"{dashes}/>'
        )
        if text:
            color = INK if fill == "none" else DARK
            self.text(x + w / 2, y + h / 2 + size * 0.36, text, size=size, fill=color, at="middle")

    def text(
        self, x: float, y: float, text: str, *,
        size: float = 13, fill: str = INK, at: str = "start", bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of text; ``at``: start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" '
            f'text-anchor="{at}"{weight}>{escape(text)}</text>'
        )

    def line(self, points: Iterable[tuple[float, float]], *, dash: bool = False) -> None:
        """A line through ``points``."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dashes = ' stroke-dasharray="5 4"' if dash else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.5"{dashes}/>'
        )

    def dot(self, x: float, y: float, fill: str, radius: float = 5) -> None:
        """A round mark."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{INK}"/>'
        )

    def arrow(self, x: float, y: float, x2: float, y2: float) -> None:
        """A line with a head, straight up, down or to a side."""
        self.line([(x, y), (x2, y2)])
        dx, dy = (0, 6 if y2 > y else -6) if x == x2 else (6 if x2 > x else -6, 0)
        sx, sy = (4, 0) if x == x2 else (0, 4)
        points = (
            f"{x2:g},{y2:g} {x2 - dx + sx:g},{y2 - dy + sy:g} {x2 - dx - sx:g},{y2 - dy - sy:g}"
        )
        self.parts.append(f'<polygon points="{points}" fill="{INK}"/>')

    def legend(self, y: float, entries: Sequence[tuple[str, str]], x: float = 20) -> None:
        """Colours and what they mean, in one line."""
        for fill, words in entries:
            self.box(x, y - 11, 14, 14, fill, stroke=INK if fill == "none" else "none")
            self.text(x + 20, y, words, size=12.5)
            x += 40 + 6.6 * len(words)

    def svg(self) -> str:
        """The file."""
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} '
            f'{self.height:g}" width="{self.width:g}" height="{self.height:g}" role="img" '
            f'font-family="{FONT}">\n<title>{escape(self.title)}</title>\n{body}\n</svg>\n'
        )
