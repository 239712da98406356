"""One training example for a person to read: in the terminal, or as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proassist_lit.report.example_parts import FrameCell, Frames, Kind, Loss, Mark, TextPiece
from proassist_lit.report.example_view import ExampleView
from proassist_lit.report.page import clean, html_table, number, render_page, svg_line

LEGEND = (
    ("⟦ ⟧", "response", "words the assistant learns to say (language-model loss)"),
    ("⟪ ⟫", "dst", "state updates it learns to write (language-model loss)"),
    ("▣ 12 (0:06.0)", "frame", "frame 12 of the video at 0:06.0; ▣×23 is a run of alike frames"),
    ("S+", "pos", "decision learnt: speak now"),
    ("U+", "pos update", "decision learnt: update the state now"),
    ("S− U−", "neg", "decision learnt: stay silent, leave the state"),
    ("S· U·", "skipped", "silent, and not trained on in this epoch; S−·· is a mark a frame"),
    ("S○ U○", "neither", "no decision: user text follows, the sample ends, or no steps"),
)
"""Sign, style, meaning."""

_BRACKETS = {Loss.NONE: ("", ""), Loss.RESPONSE: ("⟦", "⟧"), Loss.DST: ("⟪", "⟫")}
_NAMES = {Mark.POS: "pos", Mark.NEG: "neg", Mark.SKIPPED: "skipped", Mark.NEITHER: "neither"}
_STYLES = {
    "pos": "bold blue", "update": "bold yellow", "neg": "default", "skipped": "dim",
    "neither": "dim italic",
    "response": "blue", "dst": "yellow", "prompt": "dim", "system": "dim", "user": "green",
    "text": "default", "frame": "default",
}  # fmt: skip
_CHART_WIDTH, _CHART_HEIGHT = 60, 8


def facts(view: ExampleView) -> list[tuple[str, str]]:
    """What the model will see, and where each loss applies: name and value."""
    cut = "" if len(view.cells) == view.num_record_frames else (
        f" of {number(view.num_record_frames)}; cut at the longest sequence allowed"
    )  # fmt: skip
    first, last = view.cells[0], view.cells[-1]
    return [
        ("frames", f"{number(len(view.cells))}{cut}; {clock(first.time_s)} to "
                   f"{clock(last.time_s)} at {number(view.fps)} fps"),
        ("tokens", f"{number(view.num_tokens)}: {number(view.num_prefix_tokens)} before the first "
                   f"image, {number(len(view.cells) * view.num_tokens_per_img)} of images "
                   f"(K = {view.num_tokens_per_img} a frame)"),
        ("words, language-model loss", f"{number(view.response_tokens)} tokens of assistant spans"),
        ("updates, language-model loss", f"{number(view.dst_tokens)} tokens of dst spans"),
        ("speak decisions", _decisions(view, dst=False)),
        ("update decisions", _decisions(view, dst=True) if view.has_updates
                             else "none: the record lists no steps, or they are not told"),
    ]  # fmt: skip


def clock(time_s: float) -> str:
    """Seconds as ``1:06.5``."""
    tenths = round(time_s * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def terminal_view(view: ExampleView, notes: Sequence[str] = ()) -> RenderableType:
    """The example for ``rich``: facts, ``notes``, legend, sequence, tokens over time."""
    top = Table.grid(padding=(0, 2))
    for name, value in facts(view):
        top.add_row(Text(name, style="bold"), Text(value))
    legend = Table.grid(padding=(0, 2))
    for sign, style, meaning in LEGEND:
        legend.add_row(Text(sign, style=_STYLES[style.split()[-1]]), Text(meaning, style="dim"))
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("token", justify="right", style="dim", no_wrap=True)
    rows.add_column("what", no_wrap=True)
    rows.add_column("sequence", overflow="fold")
    for part in view.parts:
        if isinstance(part, Frames):
            content = Text("\n").join(_frames_text(run, view) for run in part.runs())
            rows.add_row(str(part.position), Text("frames"), content)
        else:
            pieces = (_piece_text(piece, part.kind) for piece in part.pieces)
            rows.add_row(str(part.position), Text(part.kind.value, style=_style(part.kind)),
                         Text.assemble(*pieces))  # fmt: skip
    return Group(
        Text(f"{view.name}  ({view.source})", style="bold"), Text(), top,
        Text("\n".join(["", *notes, ""]), style="dim"), legend, Text(), rows,
        Text("tokens over time", style="bold"), _chart(view),
    )  # fmt: skip


def example_page(view: ExampleView, notes: Sequence[str] = ()) -> str:
    """The same as one self-contained page."""
    rows = []
    for part in view.parts:
        if isinstance(part, Frames):
            kind, content = "frames", " ".join(_frames_html(run, view) for run in part.runs())
        else:
            kind = part.kind.value
            content = "".join(_piece_html(piece) for piece in part.pieces)
        rows.append(
            f'<tr class="{kind}"><td class=at>{part.position}</td><td class=kind>{kind}</td>'
            f"<td>{content}</td></tr>"
        )
    legend = "".join(
        f'<li><span class="{style}">{sign}</span> {clean(meaning)}</li>'
        for sign, style, meaning in LEGEND
    )
    chart = svg_line(
        view.tokens_over_time(), x_name="seconds from the start of the video", y_name="tokens"
    )
    body = (
        f"<p class=soft>{clean(view.source)}</p>\n"
        f"{html_table(['what the model sees', ''], facts(view))}\n"
        f"<p class=soft>{clean(' · '.join(notes))}</p>\n"
        f"<h2>Legend</h2><ul class=legend>{legend}</ul>\n<h2>Sequence</h2>\n"
        "<table class=sequence><thead><tr><th>token</th><th>what</th><th>sequence</th></tr></thead>"
        "<tbody>" + "\n".join(rows) + "</tbody></table>\n"
        f"<h2>Tokens over time</h2><figure class=chart>{chart}</figure>"
    )
    return render_page(view.name, body, css=_CSS)


def _decisions(view: ExampleView, *, dst: bool) -> str:
    pos, neg, skipped, neither = (
        number(view.count(mark, dst=dst))
        for mark in (Mark.POS, Mark.NEG, Mark.SKIPPED, Mark.NEITHER)
    )
    return f"{pos} pos, {neg} neg; {skipped} not trained on, {neither} neither"


def _style(kind: Kind) -> str:
    return _STYLES["response" if kind is Kind.ASSISTANT else kind.value]


def _piece_text(piece: TextPiece, kind: Kind) -> Text:
    before, after = _BRACKETS[piece.loss]
    learnt = piece.loss is not Loss.NONE
    # What stands around learnt words (openings, closings) is fed only.
    fed = "dim" if kind in (Kind.ASSISTANT, Kind.DST) else _style(kind)
    return Text(f"{before}{piece.text}{after}", style=_STYLES[piece.loss.value] if learnt else fed)


def _piece_html(piece: TextPiece) -> str:
    before, after = _BRACKETS[piece.loss]
    kind = "fed" if piece.loss is Loss.NONE else piece.loss.value
    tokens = f"{piece.num_tokens} tokens"
    return f'<span class="{kind}" title="{tokens}">{before}{clean(piece.text)}{after}</span>'


def _name(run: tuple[FrameCell, ...]) -> str:
    first, last = run[0], run[-1]
    if len(run) == 1:
        return f"▣ {first.frame_idx} ({clock(first.time_s)})"
    return (
        f"▣×{len(run)} {first.frame_idx}–{last.frame_idx} "
        f"({clock(first.time_s)}–{clock(last.time_s)})"
    )


def _heads(run: tuple[FrameCell, ...], view: ExampleView) -> list[tuple[str, list[Mark]]]:
    """Letter of every decision, with the marks of the frames: one if all are alike."""
    speak, dst = [cell.speak for cell in run], [cell.dst for cell in run]
    heads = [("S", speak), ("U", dst)] if view.has_updates else [("S", speak)]
    if len(run) > 1 and speak == dst and view.has_updates:
        heads = [("SU", speak)]
    return [(letter, marks if len(set(marks)) > 1 else marks[:1]) for letter, marks in heads]


def _frames_text(run: tuple[FrameCell, ...], view: ExampleView) -> Text:
    text = Text(_name(run))
    text.stylize(_STYLES[_act(run[0])])
    for letter, marks in _heads(run, view):
        text.append(f" {letter}", style="dim")
        for mark in marks:
            name = "update" if letter == "U" and mark is Mark.POS else _NAMES[mark]
            text.append(mark.value, style=_STYLES[name])
    return text


def _frames_html(run: tuple[FrameCell, ...], view: ExampleView) -> str:
    heads = "".join(
        f" <b>{letter}{''.join(_mark_html(letter, *alike) for alike in groupby(marks))}</b>"
        for letter, marks in _heads(run, view)
    )
    decided = f"decision token {run[0].position}" + (
        f" .. {run[-1].position}" if len(run) > 1 else ""
    )
    kind = {"pos": "cell acts", "update": "cell updates"}.get(_act(run[0]), "cell")
    return f'<span class="{kind}" title="{decided}">{_name(run)}{heads}</span>'


def _act(cell: FrameCell) -> str:
    """Style of what is to be done at the frame: speak, at least update, or nothing."""
    if cell.speak is Mark.POS:
        return "pos"
    return "update" if cell.dst is Mark.POS else "skipped"


def _mark_html(letter: str, mark: Mark, alike: Iterable[Mark]) -> str:
    kind = "pos update" if letter == "U" and mark is Mark.POS else _NAMES[mark]
    return f'<span class="{kind}">{mark.value * len(list(alike))}</span>'


def _chart(view: ExampleView) -> Text:
    """Tokens of the context against seconds, as columns of unicode eighths."""
    points = view.tokens_over_time()
    first, last = points[0][0], points[-1][0]
    width = min(_CHART_WIDTH, len(points))
    columns = [points[round(i * (len(points) - 1) / max(width - 1, 1))][1] for i in range(width)]
    top = points[-1][1]
    lines = []
    for row in range(_CHART_HEIGHT, 0, -1):
        label = number(round(top * row / _CHART_HEIGHT)) if row in (_CHART_HEIGHT, 4) else ""
        cells = (min(max(column / top * _CHART_HEIGHT - (row - 1), 0), 1) for column in columns)
        lines.append(f"{label:>8} │" + "".join(" ▁▂▃▄▅▆▇█"[round(cell * 8)] for cell in cells))
    lines.append(f"{'0':>8} └" + "─" * width)
    left, right = clock(first), clock(last)
    lines.append(" " * 10 + left + " " * max(width - len(left) - len(right), 1) + right)
    return Text("\n".join(lines), no_wrap=True)


_CSS = """
table.sequence { width: 100%; }
table.sequence th, table td { text-align: left; }
thead th { white-space: nowrap; }
table.sequence td:last-child { width: 100%; white-space: pre-wrap; }
.at, .kind { color: var(--soft); font-size: 12.5px; white-space: nowrap; }
tr.prompt td, tr.system td { color: var(--soft); }
tr.user td { color: var(--user); }
tr.assistant .fed, tr.dst .fed { color: var(--soft); }
.response { color: var(--speak); background: color-mix(in srgb, var(--speak) 12%, transparent); }
span.dst { color: var(--dst);
  background: color-mix(in srgb, var(--dst) 14%, transparent); }
.cell { display: inline-block; font-size: 13px; padding: 0 .4rem; margin: 1px 0;
  border: 1px solid var(--line); border-radius: 4px; }
.cell b { font-weight: 400; font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
.acts { border: 2px solid var(--speak); }
.updates { border: 2px solid var(--dst); }
.pos { font-weight: 700; color: var(--speak); }
.pos.update { color: var(--dst); }
.neg { font-weight: 500; }
.skipped, .neither { color: var(--soft); font-weight: 400; }
.neither { font-style: italic; }
.legend { list-style: none; padding: 0; margin: 0; font-size: 13.5px; display: grid;
  gap: .1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); }
.legend li { display: grid; grid-template-columns: 7.5rem 1fr; gap: .6rem; }
.legend span { padding: 0 .3rem; justify-self: start; align-self: start; }
.chart { max-width: 640px; }
"""
