from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from proassist_lit.report.dashboard import Chart
from proassist_lit.report.figure import draw_chart, shown
from proassist_lit.report.gantt_picture import draw_gantt
from proassist_lit.report.timeline_picture import draw_timeline
from proassist_lit.types import Transcript
from tests.report.fakes import cooking_stream
from tests.report.outcomes import MATCHER, stream


@pytest.mark.road
def test_pictures_are_small_png_files() -> None:
    transcript = cooking_stream(num_frames=1000).transcript
    match = MATCHER.match(transcript)

    timeline = draw_timeline(transcript, match, theta_speak=0.5, theta_dst=0.45)
    gantt = draw_gantt(transcript)

    assert gantt is not None
    for png in (timeline, gantt):
        picture = Image.open(io.BytesIO(png))
        picture.load()
        assert (picture.format, picture.width) == ("PNG", 1440)
        assert len(png) < 60_000
        assert len(picture.getcolors() or []) > 10  # something is drawn


@pytest.mark.road
def test_pictures_show_what_they_are_drawn_from() -> None:
    transcript = stream()
    match = MATCHER.match(transcript)

    def drawn(transcript: Transcript, theta: float | None = 0.5) -> bytes:
        return draw_timeline(transcript, match, theta_speak=theta, theta_dst=0.45)

    def refreshed(number: int) -> Transcript:
        frames = list(transcript.frames)
        frames[number] = replace(frames[number], event="drop_all")
        return replace(transcript, frames=tuple(frames))

    variants = [
        drawn(transcript),
        drawn(transcript, theta=None),
        drawn(transcript, 0.7),
        drawn(refreshed(5)),
        drawn(refreshed(12)),
    ]
    assert len(set(variants)) == 5


def test_pictures_of_any_words_are_drawn_without_a_warning() -> None:
    odd = stream("$a_1$ 煮る", text="costs $\\frac5$,\n煮る \U0001f373 {x} \\frac 100%")
    for transcript in (odd, replace(odd, steps=(), frames=(), references=())):
        match = MATCHER.match(transcript)
        assert draw_timeline(transcript, match, theta_speak=0.5, theta_dst=0.0)  # no dst head, too
    assert draw_gantt(odd)
    assert shown("a\n 煮 b") == "a □ b"
    assert shown("abcdef", 4) == "abc…"


def test_a_task_without_steps_has_no_picture_of_steps() -> None:
    assert draw_gantt(replace(stream(), steps=())) is None


def test_long_tasks_say_what_is_not_drawn() -> None:
    many = tuple((f"S{i}", "wash") for i in range(30))
    picture = draw_gantt(replace(stream(), steps=many))
    assert picture is not None
    assert picture != draw_gantt(replace(stream(), steps=many[:24]))
    assert Image.open(io.BytesIO(picture)).height < 1600


def test_charts_are_drawn() -> None:
    chart = Chart(title="t", x_name="x", y_name="y", lines={"a": ((0.0, 0.0), (1.0, 0.5))})
    empty = replace(chart, lines={})
    assert Image.open(io.BytesIO(draw_chart(chart))).format == "PNG"
    assert draw_chart(chart) != draw_chart(replace(chart, diagonal=True)) != draw_chart(empty)
