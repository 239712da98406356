"""The stream player and the list of errors in a real browser."""

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


def expect_in_sight(page: Page, selector: str) -> None:
    """Wait until it has been scrolled to."""
    page.locator(selector).evaluate(
        """node => new Promise((seen) => new IntersectionObserver(
            (entries) => entries.some((e) => e.isIntersecting) && seen()).observe(node))"""
    )


def chips(page: Page) -> dict[str, int]:
    texts = page.locator("#error-chips button").all_inner_texts()
    return {
        text.rpartition(" ")[0].partition(" ")[2]: int(text.rpartition(" ")[2]) for text in texts
    }


def test_scrubbing_moves_everything(open_report: OpenReport) -> None:
    page = open_report(fake_report(), AT)
    page.locator("#scrubber").fill("62")  # 31.0 s
    assert frame(page) == 62
    assert page.locator("#said .gen").text_content() == (
        "Generated 0:31.0 ≈ mismatched 0.31, 1.0 s lateGreat, now grate the cheese over the pan."
    )
    assert page.locator("#meters .verdict").first.inner_text() == "speaks"
    assert page.locator("#transcript li.now").get_attribute("data-i") == "60"  # with its reference
    page.locator("#lanes").hover()  # its middle
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


# ---- errors -------------------------------------------------------------------------------------


def test_errors_of_a_stream_are_those_made_up(open_report: OpenReport) -> None:
    page = open_report(replace(fake_report(), streams=[cooking_stream()]))
    assert chips(page) == {
        "missed": 1,
        "redundant": 1,
        "mismatched": 1,
        "late": 1,
        "wrong state": 10,
    }
    assert page.locator("#error-count").inner_text() == "14 of 14 errors in 1 stream"
    rows = page.locator("#error-list li")
    late = rows.filter(has_text="▸ late").text_content() or ""
    assert late.startswith("▸ late1:12.5toy_000_talk_some")
    assert late.endswith("0.72 1.5 s late")
    # S4 is never completed: from 61.0 s to the end at 75.0 s.
    assert rows.filter(has_text="for 14.0 s").locator("> span").all_text_contents() == [
        "≠ wrong state",
        "1:01.0toy_000_talk_some",
        "Reference S4 season with salt and pepper: completed",
        "Predicted S4: in progress",
        "for 14.0 s",
    ]


def test_limit_of_lateness_is_the_readers(open_report: OpenReport) -> None:
    page = open_report(replace(fake_report(), streams=[cooking_stream()]))
    limit = page.locator("#late-limit")
    limit.fill("0.5")  # more than half a second: 1.0 and 1.5 s late, 1.0 s early
    assert (chips(page)["late"], chips(page)["early"]) == (2, 1)
    limit.fill("1.5")
    assert "late" not in chips(page)
    limit.fill("")  # a field being written in changes nothing
    assert chips(page)["wrong state"] == 10


def test_wrong_states_are_those_of_the_transcripts(open_report: OpenReport) -> None:
    streams = [cooking_stream(seed, first_frame=seed * 7) for seed in range(3)]
    page = open_report(replace(fake_report(), streams=streams))
    found = page.evaluate(
        """DATA.streams.flatMap((packed, index) => packed.steps.flatMap(([id], k) =>
            wrongStretches(packed.genStates[k], packed.refStates[k], packed.n)
                .map(({ from, to }) => [index, id, from, to])))"""
    )
    wrong = {(index, step, i) for index, step, start, end in found for i in range(start, end)}
    assert wrong == {
        (index, step, i)
        for index, stream in enumerate(streams)
        for i, (frame, reference) in enumerate(
            zip(stream.transcript.frames, stream.transcript.references, strict=True)
        )
        for step, state in frame.state.items()
        if state != reference.state.get(step, StepState.NOT_STARTED)
    }
    # No two of a step touch: each is the whole of a stretch.
    assert all(
        (index, step, end) not in wrong and (index, step, start - 1) not in wrong
        for index, step, start, end in found
    )


def test_a_stretch_of_wrong_states_is_one_error(open_report: OpenReport) -> None:
    # Frames     0  1  2  3  4  5  6  7  8
    # predicted  0  0  0  0  1  1  1  2  2
    # reference  0  1  1  2  2  2  1  1  1
    page = open_report(fake_report(1))
    found = page.evaluate(
        "wrongStretches([[0, 0], [4, 1], [7, 2]], [[0, 0], [1, 1], [3, 2], [6, 1]], 9)"
    )
    assert found == [
        {"from": 1, "to": 6, "pairs": [[0, 1], [0, 2], [1, 2]]},
        {"from": 7, "to": 9, "pairs": [[2, 1]]},
    ]


def test_filters_work_together(open_report: OpenReport) -> None:
    page = open_report(fake_report())
    rows = page.locator("#error-list li")
    total = rows.count()
    assert total == sum(chips(page).values())
    page.locator("#error-chips button[data-kind=state]").click()
    assert rows.count() == total - chips(page)["wrong state"]
    assert rows.filter(has_text="wrong state").count() == 0
    page.locator("#error-search").fill("CHEESE grate")
    assert rows.count() == chips(page)["mismatched"] > 0
    page.locator("#error-search").fill("")
    page.locator("#error-split").select_option("val")
    assert set(rows.locator(".id").all_text_contents()) == {"toy_002_talk_some"}
    assert page.locator("#error-stream option").all_inner_texts() == ["all", "toy_002_talk_some"]
    page.locator("#error-split").select_option("test")
    page.locator("#error-stream").select_option(label="toy_001_talk_some")
    assert set(rows.locator(".id").all_text_contents()) == {"toy_001_talk_some"}
    page.locator("#error-search").fill("no such words")
    assert rows.all_text_contents() == ["Nothing is left of the list with these filters."]


def test_errors_are_sorted(open_report: OpenReport) -> None:
    page = open_report(fake_report())
    page.locator("#late-limit").fill("0.5")
    page.locator("#error-order").select_option("score")
    marks = page.locator("#error-list li .mark").all_text_contents()
    scores = [float(mark.split()[0]) for mark in marks if mark and mark[0].isdigit()]
    assert scores == sorted(scores)
    assert scores[0] == 0.31
    assert [bool(mark and mark[0].isdigit()) for mark in marks] == (
        [True] * len(scores) + [False] * (len(marks) - len(scores))
    )
    page.locator("#error-order").select_option("size")
    longest = page.locator("#error-list li .mark").first.text_content() or ""
    assert longest.startswith("for ")


@pytest.mark.parametrize("how", ["click", "enter"])
def test_an_error_opens_its_stream_at_its_frame(open_report: OpenReport, how: str) -> None:
    page = open_report(fake_report(), AT)
    page.locator("#split").select_option("val")  # what is shown now does not hold the stream
    page.locator("#error-stream").select_option(label="toy_001_talk_some")
    row = page.locator("#error-list li", has_text="missed").first
    time = row.locator(".place b").text_content()
    if how == "click":
        row.click()
    else:
        page.locator("#error-list li").first.focus()
        for _ in range(int(row.get_attribute("data-k") or 0)):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    assert "toy_001_talk_some" in page.locator("#pick option:checked").inner_text()
    assert page.locator("#now b").inner_text() == time
    frame(page)
    expect_in_sight(page, "#inspector")
    assert page.evaluate("document.activeElement.id") == "scrubber"


def test_perfect_streams_have_no_errors(open_report: OpenReport) -> None:
    stream = cooking_stream()
    references = stream.transcript.references
    frames = tuple(
        replace(frame, text=ref.text, speak=bool(ref.text), updates=ref.updates, state=ref.state)
        for frame, ref in zip(stream.transcript.frames, references, strict=True)
    )
    said = [i for i, ref in enumerate(references) if ref.text]
    stream = replace(
        stream,
        transcript=replace(stream.transcript, frames=frames),
        matched=[(i, i, 1.0) for i in said],
        missed=[],
        redundant=[],
    )
    page = open_report(replace(fake_report(), streams=[stream]))
    assert (
        page.locator("#error-list").text_content() == "Not one error in the streams of this report."
    )
    assert page.locator("#error-chips button").count() == 0
