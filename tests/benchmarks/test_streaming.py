from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from benchmarks import streaming


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is printed of two short streams."""
    monkeypatch.setattr(
        sys, "argv",
        ["streaming", "--shape", "tiny", "--streams", "2", "--frames", "30", "--speak", "0.2",
         "--words", "4", "--tokens", "2", "--device", "cpu"],
    )  # fmt: skip
    streaming.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_streaming_measures_both_sides_on_the_same_streams(measured: dict[str, Any]) -> None:
    assert set(measured) == {
        "benchmark", "ratio", "baseline", "ours", "equal_decisions", "equal_answers",
        "spoken_share", "settings", "machine",
    }  # fmt: skip
    assert measured["equal_decisions"] == measured["equal_answers"] == 1.0
    ours, theirs = measured["ours"], measured["baseline"]
    assert ours["streams"] == theirs["streams"] == 2
    assert 0 < measured["spoken_share"] == theirs["spoken_share"] < 0.4
    assert measured["ratio"] == pytest.approx(
        ours["frames_per_s"] / theirs["frames_per_s"], rel=0.01
    )
    assert measured["settings"]["frames"] == 30
    assert measured["settings"]["tokens"] == 2
