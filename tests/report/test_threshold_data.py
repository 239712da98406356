from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.metrics.decision_curves import CalibrationBin, DecisionCurves
from proassist_lit.report.run_report import RunReport
from proassist_lit.report.threshold_data import STREAMED, threshold_data

from .fakes import cooking_stream, fake_report

CURVES = DecisionCurves(
    thresholds=(0.1, 0.1 + 0.2),
    precisions=(0.5, 1.0),
    recalls=(1.0, 1.0),
    bins=(CalibrationBin(0.1, 0.0, 1), CalibrationBin(0.3, 1.0, 1)),
    num_frames=2,
    num_positive=1,
)


def report(**changes: object) -> RunReport:
    return RunReport(**{"title": "", "config_yaml": "", "metrics": {}, **changes})


def test_thresholds_keep_all_their_digits() -> None:
    # 0.1 + 0.2 > 0.3: rounded, it would no longer be decided yes at itself.
    (split,) = threshold_data(report(decisions={"test": {"speak": CURVES}}))
    head = json.loads(json.dumps(split["heads"]["speak"]))
    assert head["thresholds"] == [0.1, 0.30000000000000004]
    assert head["bins"] == [[0.1, 0.0, 1], [0.3, 1.0, 1]]
    assert (head["frames"], head["positive"]) == (2, 1)
    assert split["sweep"] is None


def test_splits_are_in_order_and_empty_ones_left_out() -> None:
    data = threshold_data(
        replace(
            fake_report(),
            decisions={"other": {"dst": CURVES}, "test": {}, "val": {"speak": CURVES}},
            sweep={},
        )
    )
    assert [split["split"] for split in data] == ["val", "other"]
    assert list(data[1]["heads"]) == ["dst"]


def test_sweep_is_sorted_and_holds_what_is_shown() -> None:
    points = [
        SweepPoint(theta_speak=0.6, theta_dst=0.2, metrics={"utterance_f1": 0.5, "bleu_1": 0.1}),
        SweepPoint(
            theta_speak=0.4,
            theta_dst=0.9,
            metrics={"utterance_f1": math.nan, "dst_update_f1": 0.25},
        ),
        SweepPoint(theta_speak=0.4, theta_dst=0.2, metrics={"utterance_f1": 0.75}),
    ]
    (split,) = threshold_data(report(sweep={"val": points}))
    sweep = split["sweep"]
    assert sweep["names"] == {"speak": ["utterance_f1"], "dst": ["dst_update_f1"]}
    assert sweep["labels"]["dst_update_f1"] == "DST update F1"
    assert [(p["speak"], p["dst"], p["values"]) for p in sweep["points"]] == [
        (0.4, 0.2, {"utterance_f1": 0.75}),
        (0.4, 0.9, {"dst_update_f1": 0.25}),  # not a number is no value
        (0.6, 0.2, {"utterance_f1": 0.5}),
    ]


def test_thresholds_of_the_run_come_from_its_metrics_or_its_streams() -> None:
    decisions = {"test": {"speak": CURVES}}
    metrics = {"test/theta_speak": 0.42, "test/speak_f1": 0.8, "test/utterance_bleu_1": 0.3}
    (split,) = threshold_data(report(decisions=decisions, metrics=metrics))
    assert split["theta"] == {"speak": 0.42, "dst": None}
    assert split["run"] == {"speak_f1": 0.8}
    (split,) = threshold_data(report(decisions=decisions, streams=[cooking_stream()]))
    assert split["theta"] == {"speak": 0.5, "dst": 0.45}


def test_every_metric_that_is_shown_has_its_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    told = report(decisions={"test": {"speak": CURVES}})
    (split,) = threshold_data(told)
    assert split["lower"] == ["utterance_time_difference_s"]
    names = (*STREAMED["speak"], "dst_invalid")
    monkeypatch.setitem(STREAMED, "speak", names)
    (split,) = threshold_data(told)
    assert split["lower"] == ["utterance_time_difference_s", "dst_invalid"]


def test_nothing_known_is_nothing_to_explore() -> None:
    assert threshold_data(report(streams=[cooking_stream()])) == []


def test_thresholds_that_are_none_of_a_probability_are_not_explored_as_such() -> None:
    points = [
        SweepPoint(theta_speak=s, theta_dst=0.5, metrics={"utterance_f1": s, "dst_update_f1": 0.5})
        for s in (2.0, 7.0)
    ]
    known = {"metrics": {"val/theta_speak": 7.0, "val/theta_dst": 0.5}, "sweep": {"val": points}}
    (split,) = threshold_data(report(**known, decisions={"val": {"speak": CURVES}}))
    assert split["theta"] == {"speak": 7.0, "dst": 0.5}

    (split,) = threshold_data(
        report(**known, decisions={"val": {"speak": CURVES}}, compares_probs=False)
    )

    assert split["theta"] == {"speak": None, "dst": 0.5}
    assert "speak" in split["heads"]
    assert split["sweep"]["names"] == {"speak": [], "dst": ["dst_update_f1"]}
