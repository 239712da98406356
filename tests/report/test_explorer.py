"""The threshold explorer in a real browser: what the sliders show, against hand counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.metrics.decision_curves import DecisionCurves, decision_curves
from proassist_lit.report.run_report import RunReport
from proassist_lit.types import FrameOutput, Reference, Transcript

from .conftest import OpenReport
from .fakes import fake_report

if TYPE_CHECKING:
    from playwright.sync_api import Page


def curves(probs: Sequence[float], labels: Sequence[int]) -> DecisionCurves:
    transcript = Transcript(
        stream_id="s",
        dataset="toy",
        fps=2.0,
        steps=(),
        frames=tuple(
            FrameOutput(
                frame_idx=i, time_s=i / 2, speak_prob=p, dst_prob=None, speak=False, dst=False
            )
            for i, p in enumerate(probs)
        ),
        references=tuple(Reference(speak_label=label) for label in labels),
    )
    found = decision_curves([transcript], "speak")
    assert found is not None
    return found


def point(theta_speak: float, theta_dst: float, **metrics: float) -> SweepPoint:
    return SweepPoint(theta_speak=theta_speak, theta_dst=theta_dst, metrics=metrics)


def small_report(**changes: object) -> RunReport:
    """Four frames, two of them to speak at; five points of a cross, in no order."""
    fields = {
        "title": "small",
        "config_yaml": "",
        "metrics": {
            "val/theta_speak": 0.4,
            "val/theta_dst": 0.3,
            "val/speak_f1": 0.5,
            "val/utterance_f1": 0.6,
            "val/dst_update_f1": 0.9,
        },
        "decisions": {"val": {"speak": curves([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])}},
        "sweep": {
            "val": [
                point(0.8, 0.3, utterance_f1=0.2, dst_update_f1=0.88),
                point(0.4, 0.7, utterance_f1=0.58, dst_update_f1=0.5),
                point(0.4, 0.3, utterance_f1=0.6, dst_update_f1=0.9),
                point(0.2, 0.3, utterance_f1=0.3, dst_update_f1=0.91),
                point(0.4, 0.1, utterance_f1=0.61, dst_update_f1=0.7),
            ]
        },
        **changes,
    }
    return RunReport(**fields)


def shown(page: Page, head: str) -> dict[str, tuple[str, str, str]]:
    """The table of a head: here, as run, change; by metric."""
    rows = page.locator(f".head-{head} tr[data-name]")
    cells = rows.evaluate_all(
        "rows => rows.map((row) => [...row.cells].slice(1).map((cell) => cell.innerText))"
    )
    names = rows.evaluate_all("rows => rows.map((row) => row.dataset.name)")
    return {name: tuple(values) for name, values in zip(names, cells, strict=True)}


def streamed(page: Page, head: str) -> str:
    return page.locator(f".head-{head} .streamed .group").inner_text()


def test_slider_begins_at_the_threshold_of_the_run(open_report: OpenReport) -> None:
    page = open_report(small_report())
    assert page.locator("#theta-speak").input_value() == "0.4"
    # At >= 0.4 two frames are decided yes, one of them rightly; one of two is found.
    assert shown(page, "speak") == {
        "speak_f1": ("0.500", "0.500", "="),
        "speak_precision": ("0.500", "–", ""),
        "speak_recall": ("0.500", "–", ""),
        "utterance_f1": ("0.600", "0.600", "="),
    }
    assert "4, of them 2 to speak at; yes at 2, right at 1; counted at P ≥ 0.4" in (
        page.locator(".head-speak .frames .group").inner_text()
    )
    assert page.locator(".head-speak .run-mark").is_visible()


def test_change_is_better_by_the_direction_of_its_metric(open_report: OpenReport) -> None:
    late = "utterance_time_difference_s"
    changed = {
        "metrics": {"val/theta_speak": 0.4, f"val/{late}": 1.0, "val/utterance_f1": 0.6},
        "sweep": {"val": [point(0.4, 0.3, utterance_f1=0.6, **{late: 1.0}),
                          point(0.8, 0.3, utterance_f1=0.5, **{late: 0.5}),
                          point(0.2, 0.3, utterance_f1=0.7, **{late: 1.5})]},
    }  # fmt: skip
    page = open_report(small_report(**changed))
    for theta, better in ((0.8, late), (0.2, "utterance_f1")):
        page.locator("#theta-speak").fill(str(theta))
        names = page.locator(".head-speak .streamed tr:has(.better)").evaluate_all(
            "rows => rows.map((row) => row.dataset.name)"
        )
        assert names == [better]
        assert page.locator(".head-speak .streamed tr:has(.worse)").count() == 1
    page.evaluate("DATA.thresholds[0].lower.push('utterance_f1')")
    page.locator("#theta-speak").fill("0.8")
    assert page.locator(".head-speak .streamed tr:has(.better)").count() == 2


def test_the_table_of_a_head_stays_within_its_column(open_report: OpenReport) -> None:
    late = {"utterance_time_difference_s": -1.5}
    page = open_report(
        small_report(
            metrics={"val/theta_speak": 0.4, **{f"val/{name}": x for name, x in late.items()}},
            sweep={"val": [point(0.4, 0.3, **late), point(0.8, 0.3, **late)]},
        )
    )
    box = page.locator(".head-speak .scroll")
    assert "time difference" in box.inner_text()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0


COUNTED = (  # theta, precision, recall, F1, what stands above them
    (0.35, "0.667", "1", "0.800", "P ≥ 0.35"),  # a probability of exactly the threshold
    (0.36, "0.500", "0.500", "0.500", "P ≥ 0.4"),
    (0.41, "1", "0.500", "0.667", "P ≥ 0.8"),
    (0, "0.500", "1", "0.667", "P ≥ 0.1"),
    (0.81, "0", "0", "0", "no frame reaches θ"),
)


def test_moving_the_slider_counts_frames_anew(open_report: OpenReport) -> None:
    page = open_report(small_report())
    for theta, precision, recall, f1, note in COUNTED:
        page.locator("#theta-speak").fill(str(theta))
        here = {name: float(cells[0]) for name, cells in shown(page, "speak").items()}
        assert here["speak_precision"] == float(precision)
        assert here["speak_recall"] == float(recall)
        assert here["speak_f1"] == float(f1)
        assert note in page.locator(".head-speak .frames .group").inner_text()


def test_every_threshold_counts_as_in_python(open_report: OpenReport) -> None:
    probs = [(37 * i % 101) / 101 for i in range(101)]
    labels = [int(i % 7 == 0 or p > 0.8) for i, p in enumerate(probs)]
    thetas = [*probs, *(k / 100 for k in range(101))]
    page = open_report(small_report(decisions={"val": {"speak": curves(probs, labels)}}))
    got = page.evaluate(
        "thetas => thetas.map((t) => decidedAt(DATA.thresholds[0].heads.speak, t))", thetas
    )
    for theta, found in zip(thetas, got, strict=True):
        yes = [label for p, label in zip(probs, labels, strict=True) if p >= theta]
        assert found["precision"] == pytest.approx(sum(yes) / len(yes) if yes else 0)
        assert found["recall"] == pytest.approx(sum(yes) / sum(labels))
        assert found["f1"] == pytest.approx(2 * sum(yes) / (len(yes) + sum(labels)))
        assert found["yes"] == (len(yes) if sum(yes) or not yes else None)


def test_keys_mouse_and_field_move_the_threshold(open_report: OpenReport) -> None:
    page = open_report(small_report())
    slider = page.locator("#theta-speak")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) == pytest.approx(0.41)
    page.keyboard.press("End")
    assert float(slider.input_value()) == 1
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    assert float(slider.input_value()) == pytest.approx(0.6, abs=0.021)
    assert shown(page, "speak")["speak_precision"][0] == "1.000"
    page.locator(".head-speak input[type=number]").fill("0.351")
    page.keyboard.press("Enter")
    assert float(slider.input_value()) == 0.351
    page.locator(".head-speak .as-run").click()
    assert float(slider.input_value()) == 0.4


def test_threshold_of_the_run_is_a_stop_of_the_slider(open_report: OpenReport) -> None:
    page = open_report(small_report(metrics={"val/theta_speak": 0.4237}))
    slider = page.locator("#theta-speak")
    assert slider.input_value() == "0.4237"
    for dragged, stop in (("0.4119", "0.41"), ("0.4241", "0.4237"), ("0.4279", "0.43")):
        slider.fill(dragged)
        assert slider.input_value() == stop


def test_free_running_metrics_are_those_of_the_nearest_swept_pair_of_a_cross(
    open_report: OpenReport,
) -> None:
    page = open_report(small_report())
    assert streamed(page, "speak") == "Streamed at 0.4, θ of updates 0.3"
    page.locator("#theta-speak").fill("0.59")
    assert streamed(page, "speak") == "Streamed at 0.4, θ of updates 0.3"
    page.locator("#theta-speak").fill("0.61")
    assert streamed(page, "speak") == "Streamed at 0.8, θ of updates 0.3"
    assert shown(page, "speak")["utterance_f1"] == ("0.200", "0.600", "−0.400 ×")
    # The threshold of updates was varied at 0.4 only: nearest in its own value first.
    page.locator("#theta-dst").fill("0.9")
    assert streamed(page, "dst") == "Streamed at 0.7, θ of speaking 0.4"
    assert shown(page, "dst") == {"dst_update_f1": ("0.500", "0.900", "−0.400 ×")}
    assert streamed(page, "speak") == "Streamed at 0.8, θ of updates 0.3"


def test_a_grid_is_read_at_both_thresholds(open_report: OpenReport) -> None:
    grid = [point(s, d, utterance_f1=s + d / 100) for d in (0.6, 0.2) for s in (0.5, 0.3, 0.7)]
    page = open_report(small_report(sweep={"val": grid}))
    page.locator("#theta-speak").fill("0.68")
    page.locator("#theta-dst").fill("0.55")
    assert streamed(page, "speak") == "Streamed at 0.7, θ of updates 0.6"
    assert shown(page, "speak")["utterance_f1"][0] == "0.706"
    # The curve has the points of the line at 0.6, in order; the nearest is ringed.
    line = page.locator(".head-speak figure").nth(2)
    assert line.locator("path.ink.c0:not(.raw)").count() == 3
    assert line.locator("path.ring").count() == 1
    path = line.locator("path.raw").first.get_attribute("d") or ""
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+)", path)]
    assert xs == sorted(xs)
    assert len(xs) == 3


def test_plots_without_data_are_left_out(open_report: OpenReport) -> None:
    page = open_report(small_report(sweep={}))
    assert page.locator("#theta-speak").count() == 1
    assert page.locator("#theta-dst").count() == 0
    assert page.locator("#heads figure").count() == 2
    assert page.locator("#heads .streamed").count() == 0


def test_every_split_keeps_its_thresholds(open_report: OpenReport) -> None:
    page = open_report(fake_report())
    page.locator("#theta-speak").fill("0.2")
    before = shown(page, "speak")
    page.locator("#explored").select_option(label="test")
    assert page.locator("#theta-speak").input_value() == "0.42"
    assert shown(page, "speak") != before
    assert "choose there" in page.locator("#explored-note").inner_text()
    page.locator("#explored").select_option(label="val")
    assert page.locator("#theta-speak").input_value() == "0.2"
    assert shown(page, "speak") == before
    bars = page.locator(".head-speak figure").nth(1).locator("rect.bar title").all_text_contents()
    counted = [int(bar.split()[0].replace(",", "")) for bar in bars]
    assert sum(counted) == 150  # one stream on val: every frame is in one bin


def test_of_a_rule_that_compares_other_numbers_frames_alone_are_explored(
    open_report: OpenReport,
) -> None:
    metrics = {"val/theta_speak": 3.2, "val/theta_dst": 0.3, "val/speak_f1": 0.5}
    report = small_report(compares_probs=False, metrics=metrics)
    stream = replace(fake_report(1).streams[0], theta_speak=None)
    page = open_report(replace(report, streams=[stream]), "#stream=0")
    assert page.locator("#theta-speak").input_value() == "0.5"  # of no run
    assert not page.locator(".head-speak .run-mark").is_visible()
    assert not page.locator(".head-speak .as-run").is_visible()
    assert set(shown(page, "speak")) == {"speak_f1", "speak_precision", "speak_recall"}
    page.locator("#theta-speak").fill("0.35")
    assert shown(page, "speak")["speak_precision"][0] == "0.667"
    assert streamed(page, "dst").startswith("Streamed at 0.3")  # updates are compared as ever

    labels = page.locator("#streams").inner_text()
    assert (labels.count("by a rule"), labels.count("θ = ")) == (1, 1)
    assert page.locator(".lane .theta-line").count() == 1
