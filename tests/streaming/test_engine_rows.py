"""Rows of thresholds in one engine: each answers as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.streaming.config import ContextSource, SpeakRule, Strategy
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from tests.fakes import random_features, tiny_model, word_chat
from tests.streaming.engines import (
    CONFIG,
    assert_equal,
    by_session,
    in_silence,
    recordings,
    talk,
    thetas,
)

ROWS = [
    {"context": ContextSource.OWN},
    {"context": ContextSource.OWN, "strategy": Strategy.DROP_MIDDLE, "max_context": 120},
    {"context": ContextSource.OWN, "strategy": Strategy.SUMMARIZE, "max_context": 120},
    {"context": ContextSource.REFERENCE, "max_context": 1000},
    {"context": ContextSource.REFERENCE, "strategy": Strategy.SUMMARIZE, "max_context": 120},
    {"context": ContextSource.REFERENCE, "strategy": Strategy.DST_REFRESH, "max_context": 120},
    {"context": ContextSource.REFERENCE, "words": False},
]


@pytest.mark.parametrize(
    ("changes", "num_slots"),
    [
        pytest.param(
            changes, num_slots,
            id="-".join(map(str, [num_slots, *changes.values()])),
            marks=() if (num_slots, changes) == (4, ROWS[-1]) else pytest.mark.road,
        )
        for changes in ROWS
        for num_slots in (4, 16)
    ],
)  # fmt: skip
def test_rows_of_thresholds_equal_separate_runs(changes: dict, num_slots: int) -> None:
    model, chat = tiny_model(7), word_chat()
    records = [talk(i, 30 + 5 * i) for i in range(3)]
    features = [random_features(r.num_frames, 1, seed=i) for i, r in enumerate(records)]
    silent = in_silence(model, chat, records[-1], features[-1])
    shares = [thetas(silent, share) for share in (0.03, 0.1, 0.1, 0.25)]
    rows = [Thresholds(s["theta_speak"], s["theta_dst"]) for s in shares]
    rows[2] = Thresholds(rows[2].speak, rows[0].dst)  # speaks as one row, updates as another
    rows.append(Thresholds(rows[1].speak, rows[1].dst, rise=0.05))
    config = replace(CONFIG, theta_speak=0.5, theta_dst=0.5, **changes)
    engine = Engine(model, chat, config, num_tokens_per_img=1, thresholds=rows, num_slots=num_slots)
    counted: list[int] = []

    answered = list(engine.run(recordings(records, features), on_frames=counted.append))

    assert sorted((a.index, a.row) for a in answered) == [
        (i, row) for i in range(3) for row in range(5)
    ]
    assert sum(counted) == 5 * sum(len(f) for f in features)
    different = set()
    for got in answered:
        row = rows[got.row]
        alone = replace(config, theta_speak=row.speak, theta_dst=row.dst, rise=row.rise)
        want = by_session(model, chat, records[got.index], features[got.index], alone)
        assert got.error is None
        assert_equal(got.frames, want, 1e-6)
        different.add(tuple((f.speak, f.dst) for f in got.frames))
    assert len(different) > 9


@pytest.mark.road
@pytest.mark.parametrize("context", ContextSource)
@pytest.mark.parametrize(
    ("rule", "values"),
    [(SpeakRule.RUNNING_SUM, (2.0, 4.0, 8.0, 16.0)), (SpeakRule.Z_SCORE, (0.5, 1.0, 1.5, 2.5))],
    ids=lambda x: getattr(x, "value", ""),
)
def test_rows_of_a_rule_equal_separate_runs(
    rule: SpeakRule, values: tuple[float, ...], context: ContextSource
) -> None:
    """Each row remembers its own sum, though all share what they decided alike."""
    model, chat = tiny_model(7), word_chat()
    records = [talk(i, 30 + 5 * i) for i in range(2)]
    features = [random_features(r.num_frames, 1, seed=i) for i, r in enumerate(records)]
    dst = thetas(in_silence(model, chat, records[-1], features[-1]), 0.05)["theta_dst"]
    rows = [Thresholds(value, dst) for value in values]
    config = replace(CONFIG, rule=rule, context=context, max_context=1000)
    engine = Engine(model, chat, config, num_tokens_per_img=1, thresholds=rows, num_slots=8)

    answered = list(engine.run(recordings(records, features)))

    different = set()
    for got in answered:
        row = rows[got.row]
        alone = replace(config, theta_speak=row.speak, theta_dst=row.dst)
        want = by_session(model, chat, records[got.index], features[got.index], alone)
        assert_equal(got.frames, want, 1e-6)
        different.add((got.index, tuple(f.speak for f in got.frames)))
    assert len(different) > 5
