"""The stream player in a real browser: scrubbing, keys, time, state and context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proassist_lit.types import StepState

from .conftest import OpenReport
from .fakes import cooking_stream, fake_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

AT = "#stream=0&frame=10"


def frame(page: Page) -> int:
    """Where the player stands; slider, clock and cursor agree."""
    i = int(page.locator("#scrubber").input_value())
    minutes, seconds = page.locator("#now b").inner_text().split(":")
    assert float(minutes) * 60 + float(seconds) == i / 2
    return i


def test_scrubbing_moves_everything(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT)
    page.locator("#scrubber").fill("62")  # 31.0 s
    assert frame(page) == 62
    assert page.locator("#said .gen").text_content() == (
        "Generated 0:31.0 ≈ mismatched 0.31, 1.0 s lateGreat, now grate the cheese over the pan."
    )
    assert page.locator("#meters .verdict").first.inner_text() == "speaks"
    assert page.locator("#transcript li.now").get_attribute("data-i") == "60"  # with its reference
    lanes = page.locator("#lanes")
    lanes.scroll_into_view_if_needed()
    box = lanes.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    assert frame(page) == pytest.approx(75, abs=1)


def test_state_board_shows_where_the_state_is_wrong(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT)
    page.locator("#scrubber").fill("66")  # S3 was started at 31.5 s, and is at 34.5 s by the model
    wrong = page.locator("#state-table tr.differs")
    assert wrong.count() == 1
    assert wrong.locator("td").all_inner_texts() == ["◐ in progress", "○ not started", "≠"]
    assert "1 of 5 steps wrong" in page.locator("#state-table thead").inner_text()
    page.locator("#scrubber").fill("70")
    assert wrong.count() == 0


def test_state_board_of_a_long_task_follows_the_step(open_report: OpenReport) -> None:
    stream = cooking_stream()
    more = {f"X{k}": StepState.NOT_STARTED for k in range(20)}
    transcript = replace(
        stream.transcript,
        steps=(*((step, "wait") for step in more), *stream.transcript.steps),
        frames=tuple(replace(f, state={**more, **f.state}) for f in stream.transcript.frames),
        references=tuple(
            replace(r, state={**more, **r.state}) for r in stream.transcript.references
        ),
    )
    page = open_report(replace(fake_report(), streams=[replace(stream, transcript=transcript)]), AT)
    doing = page.locator("#state-table tr.doing th b")
    assert doing.inner_text() == "S1"
    inside = """node => {
        const row = node.getBoundingClientRect(), box = byId("board").getBoundingClientRect();
        return box.top <= row.top && row.bottom <= box.bottom;
    }"""
    assert doing.evaluate(inside)
    assert not page.locator("#state-table tbody tr").first.evaluate(inside)


def test_arrow_keys_go_frame_by_frame(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT)
    page.locator("#inspector").scroll_into_view_if_needed()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert frame(page) == 11
    page.locator("#scrubber").focus()
    page.keyboard.press("ArrowRight")
    assert frame(page) == 12  # once, not twice
    for field in ("#order", "#error-search"):  # keys of a field are the field's
        page.locator(field).focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Space")
    assert frame(page) == 12
    assert page.locator("#play").get_attribute("aria-pressed") == "false"


@pytest.mark.road
def test_play_runs_in_real_time_and_four_times_as_fast(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT, clock=True)
    page.locator("#inspector").scroll_into_view_if_needed()
    page.keyboard.press("Space")
    assert page.locator("#play").inner_text() == "❚❚ Pause"
    page.clock.run_for(3100)
    assert frame(page) == 10 + 6  # 2 fps
    page.locator("#speed").click()
    assert page.locator("#speed").inner_text() == "4×"
    page.clock.run_for(3100)
    assert frame(page) == pytest.approx(16 + 24, abs=1)
    page.keyboard.press("ArrowLeft")  # stepping while it plays goes on from there
    page.locator("#play").click()
    stood = frame(page)
    page.clock.run_for(3000)
    assert frame(page) == stood


@pytest.mark.road
def test_play_ends_at_the_end_and_begins_anew(open_report: OpenReport) -> None:
    page = open_report(fake_report(), "#stream=0&frame=147", clock=True)
    page.locator("#play").click()
    page.clock.run_for(5000)
    assert frame(page) == 149
    assert page.locator("#play").inner_text() == "▶ Play"
    page.locator("#play").click()
    assert frame(page) == 0


def test_context_lane_shows_length_and_refreshes(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT)
    lane = page.locator(".lane.context")
    frames = fake_report().streams[0].transcript.frames
    assert lane.locator("path.refresh").count() == 1
    assert lane.locator("title").text_content() == "0:50.0 drop_middle at 400 tokens"
    heights = lane.locator(".context-line").evaluate(
        "path => path.getAttribute('d').match(/L[\\d.]+ [\\d.]+/g).map((p) => +p.split(' ')[1])"
    )
    lengths = [frame.context_len for frame in frames]
    assert len(heights) == len(lengths) + 1  # and back to the floor
    assert heights.index(min(heights)) == lengths.index(max(lengths))


def test_stream_without_lengths_has_no_context_lane(open_report: OpenReport) -> None:
    stream = cooking_stream()
    frames = tuple(replace(f, context_len=0) for f in stream.transcript.frames)
    stream = replace(stream, transcript=replace(stream.transcript, frames=frames))
    page = open_report(replace(fake_report(), streams=[stream]))
    assert page.locator(".lane.context").count() == 0
