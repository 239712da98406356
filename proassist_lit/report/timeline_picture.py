"""The timeline of a stream as a picture: probabilities, decisions, words and context over time."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from proassist_lit.metrics.matching import UtteranceMatch
from proassist_lit.report.figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    SMALL_PT,
    TEXT_PT,
    VERMILLION,
    encode,
    new_figure,
    shown,
    tidy,
)
from proassist_lit.report.outcomes import Outcome, Utterance, utterances
from proassist_lit.types import Transcript

MOST_LISTED = 14
"""Utterances whose words stand below the axes; the table has them all."""

LOOKS = {
    Outcome.MATCHED: (GREEN, "o"),
    Outcome.MISMATCHED: (ORANGE, "D"),
    Outcome.MISSED: (VERMILLION, "v"),
    Outcome.REDUNDANT: (PURPLE, "s"),
}
"""Colour and mark of every outcome."""

_LEFT, _RIGHT = 0.075, 0.94
_HEAD_IN, _GAP_IN, _FOOT_IN, _LINE_IN = 0.62, 0.13, 0.38, 0.17
_REF_LETTERS, _GEN_LETTERS = 63, 58  # of an utterance in the list


@dataclass(frozen=True)
class _Row:
    """A row of the picture: its height, and what is drawn there."""

    height_in: float
    kind: str


def draw_timeline(
    transcript: Transcript, match: UtteranceMatch, *, theta_speak: float | None, theta_dst: float
) -> bytes:
    """Draw one stream.

    Args:
        transcript: what the assistant did beside the reference.
        match: of its utterances.
        theta_speak: threshold of P(speak); None where another number was compared.
        theta_dst: threshold of P(update).

    Returns:
        A PNG. Rows from top to bottom, over the same seconds: P(speak) with its threshold and
        the decisions; the reference's utterances and the assistant's, lines joining pairs;
        P(update) likewise, where there is a dst head; length of the context, with its refreshes;
        then the words.
    """
    found = utterances(transcript, match)
    listed = found[:MOST_LISTED]
    rows = [_Row(1.25, "speak"), _Row(0.75, "words")]
    if any(frame.dst_prob is not None for frame in transcript.frames):
        rows.append(_Row(0.85, "dst"))
    rows.append(_Row(0.75, "context"))
    list_in = _LINE_IN * (len(listed) + 1.4 + (len(found) > len(listed)))
    plots_in = sum(row.height_in + _GAP_IN for row in rows)
    height = _HEAD_IN + plots_in + _FOOT_IN + list_in
    figure = new_figure(height)
    top = height - _HEAD_IN
    for row in rows:
        bottom = top - row.height_in
        axes = figure.add_axes((_LEFT, bottom / height, _RIGHT - _LEFT, row.height_in / height))
        tidy(axes, bottom=row.kind == "context")
        if row.kind == "speak":
            _draw_speak(axes, transcript, found, theta_speak)
        elif row.kind == "words":
            _draw_words(axes, found, len(listed))
        elif row.kind == "dst":
            _draw_dst(axes, transcript, theta_dst)
        else:
            _draw_context(axes, transcript)
        _span(axes, transcript)
        top = bottom - _GAP_IN
    _draw_heading(figure, transcript, found, 1 - 0.17 / height, 1 - 0.37 / height)
    _draw_list(figure, listed, len(found), (list_in - _LINE_IN) / height, _LINE_IN / height)
    return encode(figure)


def _span(axes: Axes, transcript: Transcript) -> None:
    times = [frame.time_s for frame in transcript.frames] or [0.0]
    margin = 0.01 * max(times[-1] - times[0], 1.0)
    axes.set_xlim(times[0] - margin, times[-1] + margin)


def _draw_heading(
    figure: Figure, transcript: Transcript, found: list[Utterance], title_y: float, legend_y: float
) -> None:
    figure.text(
        _LEFT, title_y, shown(transcript.stream_id, 100), fontsize=TEXT_PT + 1.5, va="center",
        fontweight="bold",
    )  # fmt: skip
    handles = [
        Line2D(
            [], [], color=colour, marker=mark, linestyle="", markersize=5,
            label=f"{outcome.value} {sum(u.outcome is outcome for u in found)}",
        )
        for outcome, (colour, mark) in LOOKS.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(_LEFT - 0.01, legend_y), ncols=4,
        frameon=False, fontsize=TEXT_PT, handletextpad=0.1, columnspacing=1.4,
    )  # fmt: skip


def _draw_probability(
    axes: Axes, times: list[float], probs: list[float], theta: float | None, colour: str
) -> None:
    axes.plot(times, probs, color=colour, linewidth=0.9)
    if theta is not None:
        axes.axhline(theta, color=GREY, linewidth=0.9, linestyle="--")
        axes.text(
            1.006, min(max(theta, 0.2), 0.9), f"θ {theta:.2f}", va="center", color=GREY,
            transform=axes.get_yaxis_transform(), fontsize=SMALL_PT,
        )  # fmt: skip
    axes.set_ylim(-0.04, 1.14)
    axes.set_yticks([0, 0.5, 1])


def _draw_speak(
    axes: Axes, transcript: Transcript, found: list[Utterance], theta: float | None
) -> None:
    frames = transcript.frames
    times = [frame.time_s for frame in frames]
    _draw_probability(axes, times, [frame.speak_prob for frame in frames], theta, BLUE)
    empty = [frame.time_s for frame in frames if frame.speak and not frame.text.strip()]
    axes.plot(empty, [1.08] * len(empty), linestyle="", marker="x", markersize=4, color=GREY)
    for outcome, (colour, mark) in LOOKS.items():
        said = [u.gen_time_s for u in found if u.outcome is outcome and u.gen_time_s is not None]
        axes.plot(said, [1.08] * len(said), linestyle="", marker=mark, markersize=4, color=colour)
    axes.set_ylabel("P(speak)", fontsize=TEXT_PT)


def _draw_words(axes: Axes, found: list[Utterance], num_listed: int) -> None:
    for number, utterance in enumerate(found, start=1):
        colour, mark = LOOKS[utterance.outcome]
        ends = [
            (time_s, y)
            for time_s, y in ((utterance.ref_time_s, 1.0), (utterance.gen_time_s, 0.0))
            if time_s is not None
        ]
        axes.plot(
            [x for x, _ in ends], [y for _, y in ends], color=colour, marker=mark, markersize=4.5,
            linewidth=1.2,
        )  # fmt: skip
        if number <= num_listed:
            x, y = ends[0]
            axes.annotate(
                str(number), (x, y), xytext=(0, 4.5), textcoords="offset points", ha="center",
                fontsize=SMALL_PT, color=GREY,
            )  # fmt: skip
    axes.set_ylim(-0.35, 1.75)
    axes.set_yticks([0, 1], ["said", "reference"])
    axes.grid(visible=False, axis="y")


def _draw_dst(axes: Axes, transcript: Transcript, theta: float) -> None:
    known = [(f.time_s, f.dst_prob) for f in transcript.frames if f.dst_prob is not None]
    _draw_probability(axes, [t for t, _ in known], [p for _, p in known], theta, SKY)
    made = [frame.time_s for frame in transcript.frames if frame.dst]
    wanted = [
        frame.time_s
        for frame, reference in zip(transcript.frames, transcript.references, strict=True)
        if reference.updates
    ]
    for time_s in wanted:
        axes.axvline(time_s, color=PALE, linewidth=2.5, zorder=0)
    axes.plot(made, [1.08] * len(made), linestyle="", marker="|", markersize=6, color=BLACK)
    axes.set_ylabel("P(update)", fontsize=TEXT_PT)
    axes.text(
        1.006, 1.08, "made", transform=axes.get_yaxis_transform(), fontsize=SMALL_PT, va="center"
    )
    if wanted:
        axes.text(
            1.006, 0.02, "wanted", transform=axes.get_yaxis_transform(), fontsize=SMALL_PT,
            va="center", color=GREY,
        )  # fmt: skip


def _draw_context(axes: Axes, transcript: Transcript) -> None:
    times = [frame.time_s for frame in transcript.frames]
    lengths = [frame.context_len for frame in transcript.frames]
    axes.fill_between(times, lengths, step="post", color=SKY, alpha=0.35, linewidth=0)
    axes.step(times, lengths, where="post", color=BLUE, linewidth=0.9)
    refreshes = [frame for frame in transcript.frames if frame.event]
    for frame in refreshes:
        axes.axvline(frame.time_s, color=VERMILLION, linewidth=1, linestyle=":")
    if refreshes:
        names = ", ".join(sorted({frame.event or "" for frame in refreshes}))
        axes.text(
            0.005, 0.93, shown(f"{len(refreshes)} × {names}", 60), transform=axes.transAxes,
            fontsize=SMALL_PT, va="top", color=VERMILLION,
        )  # fmt: skip
    axes.set_ylim(0, max([*lengths, 1]) * 1.12)
    axes.set_ylabel("context", fontsize=TEXT_PT)
    axes.set_xlabel("seconds", fontsize=TEXT_PT, labelpad=1)


def _draw_list(
    figure: Figure, listed: list[Utterance], num_found: int, top: float, line: float
) -> None:
    """The words, in lines that begin at ``top``; both are shares of the height."""
    number_x, ref_x, mark_x, gen_x, score_x = 0.035, 0.085, 0.5, 0.56, 0.985

    def write(x: float, y: float, text: str, *, right: bool = False, faint: bool = False) -> None:
        figure.text(
            x, y, text, fontsize=SMALL_PT, va="center", ha="right" if right else "left",
            color=GREY if faint else BLACK,
        )  # fmt: skip

    for x, head in ((ref_x, "reference"), (gen_x, "said")):
        write(x, top + 0.4 * line, head, faint=True)
    write(score_x, top + 0.4 * line, "score", right=True, faint=True)
    for number, utterance in enumerate(listed, start=1):
        y = top - (number - 0.4) * line
        colour, mark = LOOKS[utterance.outcome]
        figure.add_artist(
            Line2D([mark_x], [y], marker=mark, color=colour, markersize=4.5, linestyle="")
        )
        write(number_x, y, str(number), right=True, faint=True)
        for x, time_s, words, most in (
            (ref_x, utterance.ref_time_s, utterance.reference, _REF_LETTERS),
            (gen_x, utterance.gen_time_s, utterance.generated, _GEN_LETTERS),
        ):
            if time_s is not None:
                write(x - 0.008, y, f"{time_s:.1f}", right=True, faint=True)
                write(x, y, shown(words, most))
        if utterance.score is not None:
            write(score_x, y, f"{utterance.score:.2f}", right=True)
    if num_found > len(listed):
        rest = f"and {num_found - len(listed)} more, in the table of utterances"
        write(ref_x, top - (len(listed) + 0.6) * line, rest, faint=True)
