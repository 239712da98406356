"""The list of errors in a real browser: what is in it, filters, order, and the jump to a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proassist_lit.types import StepState

from .conftest import OpenReport
from .fakes import cooking_stream, fake_report

if TYPE_CHECKING:
    from playwright.sync_api import Page


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
    page = open_report(fake_report())
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


def test_nothing_is_missed_where_nothing_was_written(open_report: OpenReport) -> None:
    page = open_report(replace(fake_report(), has_words=False))
    assert page.locator("#errors").is_hidden()
    assert page.locator("#places a", has_text="Errors").count() == 0
    assert page.locator("#streams").is_visible()
