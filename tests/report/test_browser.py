"""The page in a real browser, where there is one: the script draws everything, without error."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest

from proassist_lit.report.html import render_report
from proassist_lit.report.run_report import RunReport

from .conftest import OpenReport
from .fakes import cooking_stream, fake_report, noisy_picture
from .test_html import HOSTILE, hostile_report


def test_script_draws_the_page(open_report: OpenReport) -> None:
    page = open_report(fake_report(), "#stream=0&frame=93")
    dom = page.content()
    assert 'data-ready="1"' in dom
    assert "data-fault" not in dom

    pills = re.findall(r'<button type="button" class="pill m-(\w+)', dom)
    # 2 of the user; 8 reference and 8 generated utterances, of which 6 pairs match and 1 does not.
    assert sorted(pills) == sorted(
        ["user"] * 2 + ["matched"] * 12 + ["mismatched"] * 2 + ["missed", "redundant"]
    )
    assert dom.count('class="fired"') == 8 + 9  # spoken, and updates that were made
    assert len(re.findall(r'<path class="prob" d="M[\d.]+ [\d.]+L', dom)) == 2
    assert len(re.findall(r'<div class="lane[^"]*"', dom)) == 9 + 5  # axis to context, one a step
    assert len(re.findall(r'class="gen-2"', dom)) == 4 + 1  # S4 is never completed; the legend
    assert page.locator("#curves figure.panel").count() == 5
    assert "0:46.5</b>" in dom  # the cursor stands where the link asked
    assert "mismatched 0.31, 1.0 s late" in dom
    assert re.search(r'<td class="test best">0\.\d{3}</td>', dom)
    assert "<dt>train/loss</dt><dd>0.213</dd>" in dom  # of no column, so not in the table
    places = ["Results", "Thresholds", "Errors", "Streams", "Training curves", "Run"]
    assert page.locator("#places a").all_inner_texts() == places


@pytest.mark.road
def test_earlier_run_stands_between_test_and_baselines(open_report: OpenReport) -> None:
    report = fake_report()
    value = report.metrics["test/utterance_f1"]
    page = open_report(report)
    head = page.locator("#headline thead tr").nth(1).locator("th").all_inner_texts()
    assert head[:6] == ["Metric", "val", "test", "test", "change", "always silent"]
    assert "against per_token, seed 0" in page.locator("#headline thead").inner_text()
    rows = page.locator("#headline tbody tr")
    f1 = rows.first.locator("td").all_inner_texts()
    assert f1[1:4] == [f"{value:.3f}", f"{value - 0.02:.3f}", "+0.020 ✓"]
    late = rows.filter(has_text="time difference").locator("td").all_inner_texts()
    assert late[3] == "+0.020 ×"  # later is worse
    assert page.locator("#key .change").first.inner_text().strip() == "+0.020 ✓"
    alone = open_report(replace(report, earlier=None))
    assert alone.locator("#headline .change, #headline .earlier, #key .change").count() == 0


@pytest.mark.road
def test_dialogues_stand_side_by_side(open_report: OpenReport) -> None:
    page = open_report(fake_report())
    # 7 pairs, 1 missed and 1 redundant; 2 of the user; 10 reference and 9 generated updates, no
    # two of them at one frame; a context event.
    assert page.locator("#transcript > li").count() == 7 + 2 + 2 + 19 + 1
    row = page.locator("#transcript > li.mismatched")
    assert row.locator(".words.ref").text_content() == (
        "Reference 0:30.0 That's enough oil; add the carrot slices and fry them."
    )
    assert row.locator(".words.gen").text_content() == (
        "Generated 0:31.0 Great, now grate the cheese over the pan."
    )
    page.locator("#chips button.m-update").click()
    assert page.locator("#transcript > li").count() == 12
    row.locator(".words.gen").click()
    assert page.locator("#now b").inner_text() == "0:31.0"
    assert page.locator("#transcript > li.now").count() == 1


def test_hostile_text_does_not_run(open_report: OpenReport) -> None:
    # An alert would end in an img element; a script of the text would change the title.
    page = open_report(hostile_report(HOSTILE.replace("alert(1)", "document.title='owned'")))
    dom = page.content()
    assert "data-fault" not in dom
    assert not page.title().startswith("owned")
    assert '<img src="x"' not in dom
    assert "&lt;/script&gt;&lt;script&gt;document.title='owned'" in dom
    page.locator("#error-search").fill("onerror")
    assert "document.title='owned'" in (page.locator("#error-list li").first.text_content() or "")


def test_a_fault_of_the_script_is_said(open_report: OpenReport) -> None:
    page = render_report(fake_report(1)).replace("\nstart();\n", "\nstart();\nnonsense();\n")
    fault = open_report(page, may_fail=True).locator("#fault")
    assert fault.is_visible()
    assert re.search(r"This report could not.*nonsense", fault.inner_text())


OUTSIDE = """
() => [...document.querySelectorAll("main *, header *")]
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
    .filter((node) => !node.closest(".scroll, #scroller, pre, svg, [hidden]"))
    .map((node) => node.outerHTML.slice(0, 90))
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_page_fits_laptop_and_phone(
    open_report: OpenReport, scheme: Literal["light", "dark"], size: tuple[int, int]
) -> None:
    name = "outputs/per_token/2026-01-31_12-00-00-x7k2p"
    page = open_report(replace(fake_report(), earlier_name=name), size=size, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((box) => (box.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.evaluate(OUTSIDE) == []  # what is wider stands in a box that scrolls by itself
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all((int(part) > 128) == (scheme == "light") for part in re.findall(r"\d+", colour))


def test_parts_without_data_are_not_shown(open_report: OpenReport) -> None:
    page = open_report(RunReport(title="nothing yet", config_yaml="", metrics={}))
    assert page.locator("main > section:visible").count() == 0
    assert page.locator("#key").inner_text() == "No results yet."


@pytest.mark.road
def test_fifty_long_streams_open_at_once(open_report: OpenReport) -> None:
    """Measured on two CPU cores: 0.3 s without pictures, 0.7 s with 112 noisy ones a stream."""
    streams = [cooking_stream(seed, num_frames=1000) for seed in range(3)]
    film = [(i, noisy_picture(i)) for i in range(0, 1000, 9)]
    streams = [replace(stream, filmstrip=film) for stream in streams]
    page = open_report(replace(fake_report(), streams=[streams[k % 3] for k in range(50)]))
    ready_ms, loaded_ms = page.evaluate(
        """[performance.getEntriesByName("ready")[0].startTime,
            performance.getEntriesByType("navigation")[0].loadEventEnd]"""
    )
    assert ready_ms < 2000
    assert loaded_ms < 2000
    # Only what is in sight of the list of errors is drawn; the rest follows.
    rows = page.locator("#error-list li")
    assert rows.count() == 100
    page.locator("#error-list").evaluate("list => list.scrollTo(0, list.scrollHeight)")
    rows.nth(199).wait_for(state="attached")
    assert rows.count() == 200
