from __future__ import annotations

import sys

import pytest

from benchmarks import sweep
from proassist_lit.types import FrameOutput


def frame(index: int, text: str | None = None) -> FrameOutput:
    return FrameOutput(
        frame_idx=index, time_s=index / 2, speak_prob=0.5, dst_prob=None, speak=text is not None,
        dst=False, text=text or "", updates=(), dst_invalid=0, state={}, user_text="",
        context_len=0, event=None,
    )  # fmt: skip


def test_what_rows_share_is_counted_once() -> None:
    silent = [frame(0), frame(1), frame(2)]
    first = [frame(0, "4 5 6"), frame(1), frame(2)]
    same = [frame(0, "4 5 6"), frame(1), frame(2, "7")]
    # of silent 3 frames of 5 tokens; of first its words and two frames more; of same its last word
    assert sweep.num_distinct([[silent]], 5, 2) == 15
    assert sweep.num_distinct([[silent], [silent]], 5, 2) == 15
    assert sweep.num_distinct([[silent], [first]], 5, 2) == 15 + (3 + 2) + 10
    assert sweep.num_distinct([[silent], [first], [same]], 5, 2) == 30 + 1 + 2
    assert sweep.num_distinct([[silent, first]], 5, 2) == 15 + 20  # other streams share nothing


def test_sweep_answers_rows_as_they_are_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv",
        ["sweep", "--shape", "tiny", "--streams", "2", "--frames", "50", "--words", "4",
         "--device", "cpu"],
    )  # fmt: skip
    sweep.main()
    found = sweep.json.loads(capsys.readouterr().out)

    assert found["thresholds"] == len(sweep.SHARES)
    for way in sweep.WAYS:
        assert found["ours"][way]["equal_answers"] == 1.0
        assert 0 < found["ours"][way]["spoken_share"] < 0.3
    assert 1.0 < found["ours"]["free"]["tokens"] < len(sweep.SHARES)
