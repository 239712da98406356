"""The steps of a task over time as a picture: the state that was predicted above the right one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from proassist_lit.report.figure import (
    BLUE,
    GREY,
    TEXT_PT,
    VERMILLION,
    encode,
    new_figure,
    shown,
    tidy,
)
from proassist_lit.types import DialogueState, StepState, Transcript

MOST_STEPS = 24
"""Steps that are drawn; the first ones."""

T = TypeVar("T")

_HEAD_IN, _ROW_IN, _FOOT_IN = 0.62, 0.33, 0.45
_PREDICTED, _REFERENCE = BLUE, GREY
_ALPHA = {StepState.IN_PROGRESS: 1.0, StepState.COMPLETED: 0.28}


def draw_gantt(transcript: Transcript) -> bytes | None:
    """Draw the state of every step; None for a task without steps.

    A step has two bars: what the assistant believed above what was so, full while the step is in
    progress, pale when it is completed. Between them is red where the two differ.
    """
    steps = transcript.steps[:MOST_STEPS]
    if not steps or not transcript.frames:
        return None
    height = _HEAD_IN + _ROW_IN * len(steps) + _FOOT_IN
    figure = new_figure(height)
    bottom, top = _FOOT_IN / height, 1 - _HEAD_IN / height
    axes = figure.add_axes((0.29, bottom, 0.68, top - bottom))
    tidy(axes)
    axes.grid(visible=False, axis="y")
    predicted = [frame.state for frame in transcript.frames]
    expected = [reference.state for reference in transcript.references]
    for row, (step, _) in enumerate(steps):
        _draw_bars(axes, transcript, predicted, step, row - 0.23, _PREDICTED)
        _draw_bars(axes, transcript, expected, step, row + 0.23, _REFERENCE)
        wrong = [p.get(step) != e.get(step) for p, e in zip(predicted, expected, strict=True)]
        for is_wrong, left, right in _spans(transcript, wrong):
            if is_wrong:
                axes.barh(row, right - left, left=left, height=0.1, color=VERMILLION, linewidth=0)
    axes.set_yticks(
        range(len(steps)), [shown(f"{step}  {name}", 38) for step, name in steps], fontsize=TEXT_PT
    )
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xlim(transcript.frames[0].time_s, transcript.frames[-1].time_s + 1 / transcript.fps)
    axes.set_xlabel("seconds", fontsize=TEXT_PT, labelpad=1)
    num_right = sum(dict(p) == dict(e) for p, e in zip(predicted, expected, strict=True))
    title = f"{shown(transcript.stream_id, 70)}: whole state right at {num_right} of "
    num_cut = len(transcript.steps) - len(steps)
    cut = f"; {num_cut} more steps are not drawn" if num_cut else ""
    figure.text(
        0.02, 1 - 0.17 / height, f"{title}{len(predicted)} frames{cut}", fontsize=TEXT_PT + 1,
        va="center", fontweight="bold",
    )  # fmt: skip
    figure.legend(
        handles=[
            Patch(color=_PREDICTED, label="predicted, in progress"),
            Patch(color=_PREDICTED, alpha=_ALPHA[StepState.COMPLETED], label="completed"),
            Patch(color=_REFERENCE, label="reference, in progress"),
            Patch(color=_REFERENCE, alpha=_ALPHA[StepState.COMPLETED], label="completed"),
            Patch(color=VERMILLION, label="they differ"),
        ],
        loc="center left", bbox_to_anchor=(0.01, 1 - 0.42 / height), ncols=5, frameon=False,
        fontsize=TEXT_PT, handlelength=1.2, handleheight=0.8, columnspacing=1.4,
    )  # fmt: skip
    return encode(figure)


def _draw_bars(
    axes: Axes,
    transcript: Transcript,
    states: Sequence[DialogueState],
    step: str,
    y: float,
    colour: str,
) -> None:
    of_step = [state.get(step, StepState.NOT_STARTED) for state in states]
    for state, left, right in _spans(transcript, of_step):
        if state in _ALPHA:
            axes.barh(
                y, right - left, left=left, height=0.34, color=colour, alpha=_ALPHA[state],
                linewidth=0,
            )  # fmt: skip


def _spans(transcript: Transcript, values: Sequence[T]) -> Iterator[tuple[T, float, float]]:
    """Runs of equal values: the value, its first second, and the second after its last frame."""
    index = 0
    for value, run in groupby(values):
        length = len(list(run))
        left = transcript.frames[index].time_s
        yield value, left, left + length / transcript.fps
        index += length
