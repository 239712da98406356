"""One self-contained page for one run: no network, no dependency, opens from a disk."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path

from proassist_lit.atomic import write_text
from proassist_lit.report.payload import make_payload
from proassist_lit.report.run_report import RunReport

SCRIPTS = (
    "dom.js",
    "scores.js",
    "plot.js",
    "explorer.js",
    "states.js",
    "errors.js",
    "context.js",
    "timeline.js",
    "dialogue.js",
    "player.js",
    "curves.js",
    "report.js",
)
"""In order of use; they share one script element, and the last one fills the page."""

_PLACE = re.compile(r"\{\{(title|css|data|js)\}\}")


def write_report(path: Path, report: RunReport) -> None:
    """Write ``report`` as one HTML file, atomically: readers see the old page or the new one.

    The page loads nothing (its content security policy forbids it) and draws only the stream
    that is selected.

    Args:
        path: the file to write; its directory is made if needed.
        report: what to show. Its text may hold anything: it reaches the page as data, never as
            markup.
    """
    write_text(Path(path), render_report(report))


def render_report(report: RunReport) -> str:
    """The page as a string."""
    package = files("proassist_lit.report")
    parts = {
        "title": escape(report.title.encode("utf-8", "replace").decode("utf-8")),
        "css": package.joinpath("report.css").read_text(encoding="utf-8"),
        "data": script_json(make_payload(report)),
        "js": "\n".join(package.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    template = package.joinpath("report.html").read_text(encoding="utf-8")
    # One pass: what was filled in is never searched for places again.
    return _PLACE.sub(lambda place: parts[place[1]], template)


def script_json(data: object) -> str:
    """JSON that can stand inside a ``<script>`` element, whatever its strings hold.

    ``<``, ``>`` and ``&`` are written as escapes, so that neither ``</script>`` nor ``<!--`` can
    occur; all that is not ASCII is escaped too, lone surrogates included.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
