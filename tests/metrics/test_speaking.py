from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.speaking import FrameDecisionMetrics
from proassist_lit.types import Transcript


def with_frames(transcript: Transcript, rows: list[tuple[float, bool, int | None]]) -> Transcript:
    """Set (probability, decision, label) of the speak head at each frame."""
    return replace(
        transcript,
        frames=tuple(
            replace(frame, speak_prob=prob, speak=speak)
            for frame, (prob, speak, _) in zip(transcript.frames, rows, strict=True)
        ),
        references=tuple(
            replace(reference, speak_label=label)
            for reference, (_, _, label) in zip(transcript.references, rows, strict=True)
        ),
    )


def score(*transcripts: Transcript, head: str = "speak", **arguments) -> dict[str, float]:
    metric = FrameDecisionMetrics(head, **arguments)
    metric.update(transcripts)
    return {key: float(value) for key, value in metric.compute().items()}


ROWS = [
    (0.9, True, 1),
    (0.8, True, 0),
    (0.7, True, 1),
    (0.4, False, 1),
    (0.3, False, 0),
    (0.2, False, 0),
    (0.99, True, None),  # neither: not counted, whatever was decided
]


def test_frame_decisions_by_hand(make_transcript) -> None:
    scores = score(with_frames(make_transcript(7), ROWS), num_bins=2)
    assert scores["speak_num_frames"] == 6
    assert scores["speak_num_positive"] == 3
    assert scores["speak_precision"] == pytest.approx(2 / 3)
    assert scores["speak_recall"] == pytest.approx(2 / 3)
    assert scores["speak_f1"] == pytest.approx(2 / 3)
    assert scores["speak_balanced_accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    # Precision where each positive is ranked: 1/1, 2/3, 3/4.
    assert scores["speak_ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # Of the 9 pairs of a positive and a negative, 0.7 and 0.4 stand below 0.8.
    assert scores["speak_auroc"] == pytest.approx(7 / 9)
    # Two bins of three frames: mean probability 0.3 against 1/3, and 0.8 against 2/3.
    assert scores["speak_ece"] == pytest.approx(0.5 * (1 / 3 - 0.3) + 0.5 * (0.8 - 2 / 3), abs=1e-6)


def test_a_head_that_is_sure_is_in_the_last_bin(make_transcript) -> None:
    rows = [(1.0, True, 0), (0.96, True, 1), (0.95, True, 1)]
    assert score(with_frames(make_transcript(3), rows))["speak_ece"] == pytest.approx(0.97 - 2 / 3)


def test_precision_is_of_the_decision_made_not_of_a_threshold(make_transcript) -> None:
    rows = [(0.1, True, 1), (0.9, False, 0)]
    scores = score(with_frames(make_transcript(2), rows))
    assert scores["speak_f1"] == 1.0
    assert scores["speak_auroc"] == 0.0


def test_balanced_accuracy_is_not_won_by_silence(make_transcript) -> None:
    rows = [(0.1, False, 0)] * 9 + [(0.1, False, 1)]
    scores = score(with_frames(make_transcript(10), rows))
    assert scores["speak_balanced_accuracy"] == 0.5
    assert scores["speak_f1"] == 0.0


def test_ranking_is_left_out_where_one_class_is_missing(make_transcript) -> None:
    scores = score(make_transcript(5))
    assert "speak_ap" not in scores
    assert "speak_auroc" not in scores
    assert scores["speak_f1"] == scores["speak_balanced_accuracy"] == 1.0


def test_dst_head_is_scored_apart_and_left_out_where_absent(make_transcript) -> None:
    late = make_transcript(10, updates={4: "S1->start"}, ref_updates={3: "S1->start"}, num_steps=1)
    scores = score(late, make_transcript(5), head="dst")
    assert scores["dst_num_frames"] == 10
    assert scores["dst_f1"] == 0.0  # exact frame: one late is wrong
    assert score(make_transcript(5), head="dst") == {}
    # Labels, but no head that could have decided.
    headless = replace(late, frames=make_transcript(10).frames)
    assert score(headless, head="dst") == {}


def test_unknown_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"head must be one of.*got 'talk' and 15"):
        FrameDecisionMetrics("talk")


def test_frame_metrics_merged_equal_the_whole(make_transcript) -> None:
    streams = [
        with_frames(make_transcript(3), ROWS[:3]),
        make_transcript(0),
        with_frames(make_transcript(4), ROWS[3:]),
    ]
    whole = score(*streams)
    parts = [FrameDecisionMetrics("speak") for _ in streams]
    for part, stream in zip(parts, streams, strict=True):
        part.update([stream])
    parts[1].merge_state(parts[0])
    parts[1].merge_state(parts[2])
    merged = {key: float(value) for key, value in parts[1].compute().items()}
    assert merged == pytest.approx(whole, abs=1e-12)
    assert torch.cat(list(parts[1].probs)).numel() == 6
