from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from benchmarks import metrics


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is printed of short streams."""
    monkeypatch.setattr(sys, "argv", ["metrics", "--frames", "100,300", "--dense-frames", "200"])
    metrics.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_metrics_measures_both_sides_and_each_length(measured: dict[str, Any]) -> None:
    assert set(measured) == {
        "benchmark", "ratio", "baseline", "ours", "equal_costs", "lengths", "machine"
    }  # fmt: skip
    assert measured["equal_costs"] is True
    assert measured["ours"]["frames"] == measured["baseline"]["frames"] == 200
    assert [row["frames"] for row in measured["lengths"]] == [100, 300]
    for row in measured["lengths"]:
        assert row["utterances"] == round(metrics.SHARE * row["frames"])
        assert row["matching_s"] > 0
        assert 0.5 < row["utterance_f1"] < 1.0
        rounding_us = 100 / row["frames"]
        us_per_frame = 1e6 * row["all_metrics_s"] / row["frames"]
        assert row["us_per_frame"] == pytest.approx(us_per_frame, abs=rounding_us)
