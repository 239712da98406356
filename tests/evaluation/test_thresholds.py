"""Which thresholds are tried on val, and which are taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.evaluation.thresholds import Candidates
from proassist_lit.streaming.calibrate import FALLBACK
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.policy import Thresholds

OPEN = StreamConfig(theta_speak=None, theta_dst=None)
PROBS = torch.linspace(1, 0, 41, dtype=torch.float64)
SPEAK = PROBS, torch.tensor([1] * 8 + [0] * 33)
DST = PROBS, torch.tensor([1] * 4 + [0] * 37)


def test_one_decision_varies_while_the_other_keeps_its_first_threshold() -> None:
    found = Candidates.find(OPEN, SPEAK, DST, 3)
    assert len(found.speak) == len(found.dst) == 3
    rows = found.rows()
    assert rows[0] == Thresholds(found.speak[0], found.dst[0])
    assert {row.speak for row in rows if row.dst == found.dst[0]} == set(found.speak)
    assert {row.dst for row in rows if row.speak == found.speak[0]} == set(found.dst)
    assert len(rows) == len(set(rows)) == 5


def test_a_threshold_that_is_given_is_the_first_and_stays() -> None:
    found = Candidates.find(
        replace(OPEN, theta_speak=0.9), None, DST, 3, also_speak=[0.1, 0.9, 0.5], also_dst=[0.99]
    )
    assert found.speak == (0.9, 0.1, 0.5)
    assert found.dst[-1] == 0.99
    points = [
        SweepPoint(
            theta_speak=row.speak,
            theta_dst=row.dst,
            metrics={"utterance_f1": 1 - row.speak, "dst_update_f1": row.dst},
        )
        for row in found.rows()
    ]
    assert found.choose(points) == Thresholds(0.9, 0.99)


@pytest.mark.parametrize(
    ("given", "num", "decides"),
    [
        ({"theta_speak": 0.9, "theta_dst": 0.9}, 3, False),  # swept all the same
        ({"theta_speak": 0.9}, 3, True),
        ({"theta_dst": 0.9}, 3, True),
        ({"theta_dst": 0.9}, 1, True),  # among those asked for
        ({"theta_speak": 0.9}, 1, False),
    ],
)
def test_streaming_decides_where_a_threshold_that_is_not_given_has_several_candidates(
    given: dict[str, float], num: int, decides: bool
) -> None:
    found = Candidates.find(replace(OPEN, **given), SPEAK, DST, num, also_speak=[0.1, 0.5])
    assert len(found.rows()) > 1
    assert found.streaming_decides == decides


def test_each_threshold_is_taken_by_the_metric_of_its_own_decision() -> None:
    found = Candidates((0.5, 0.2, 0.8), (0.4, 0.1))
    metrics = {
        (0.5, 0.4): (0.6, 0.3), (0.2, 0.4): (0.9, 0.1), (0.8, 0.4): (0.2, 0.9),
        (0.5, 0.1): (0.99, 0.7),
    }  # fmt: skip
    points = [
        SweepPoint(
            theta_speak=speak,
            theta_dst=dst,
            metrics=dict(zip(("utterance_f1", "dst_update_f1"), values, strict=True)),
        )
        for (speak, dst), values in metrics.items()
    ]
    assert found.choose(points) == Thresholds(0.2, 0.1)


def test_of_equals_the_teacher_forced_choice_is_taken() -> None:
    found = Candidates((0.5, 0.2), (0.4, 0.1))
    points = [
        SweepPoint(theta_speak=row.speak, theta_dst=row.dst, metrics={"utterance_f1": 0.5})
        for row in found.rows()
    ]
    assert found.choose(points) == Thresholds(0.5, 0.4)


def test_without_a_dst_head_its_threshold_is_the_fallback_and_rise_needs_none() -> None:
    found = Candidates.find(replace(OPEN, rise=0.3), SPEAK, None, 5)
    assert found.dst == (FALLBACK,)
    assert len(found.speak) == 1
    assert found.rows() == [Thresholds(found.speak[0], FALLBACK, 0.3)]
    assert found.choose(
        [SweepPoint(theta_speak=found.speak[0], theta_dst=FALLBACK, metrics={})]
    ) == pytest.approx(found.rows()[0])
