"""Settings and features that a session in the reference's way refuses."""

from __future__ import annotations

import pytest

from proassist_lit.errors import ConfigError, FeatureError, StreamError
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.reference_context import ReferenceConfig
from tests.fakes import random_features, tiny_model
from tests.streaming.reference_sessions import chat, open_session


def test_refusals_leave_the_session_as_it_was() -> None:
    formatter, frames = chat(), random_features(2)
    session = open_session(tiny_model(dst=False), formatter)
    first = session.step(frames[0])
    broken = frames[1].clone()
    broken[0, 3] = float("nan")

    with pytest.raises(StreamError, match=r"stream 'kitchen', frame 5: features hold NaN"):
        session.step(broken)
    with pytest.raises(StreamError, match=r"frame 5: features are \(6,\), expected \(1, E\)"):
        session.step(frames[1][0])
    with pytest.raises(FeatureError, match=r"^stream .*frame \d+: features are 4 wide.*reads 6"):
        session.step(frames[1][:, :4])

    other = open_session(tiny_model(dst=False), formatter)
    assert other.step(frames[0]) == first
    assert session.step(frames[1]) == other.step(frames[1])


def test_full_context_without_a_strategy_is_refused() -> None:
    config = ReferenceConfig(strategy="none", eval_max_seq_len=40, reserved_seq_len=30)
    session = open_session(tiny_model(dst=False), chat(), config)
    session.step(random_features(1)[0], "how many")

    with pytest.raises(StreamError, match=r"'kitchen', frame 5: the context is full \(\d+ of 40"):
        session.step(random_features(1)[0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strategy": Strategy.DST_REFRESH}, r"strategy is .*dst_refresh.* choose one of none"),
        ({"not_talk_threshold": 1.5}, r"not_talk_threshold must be in \[0, 1\] or 'diffX', got 1"),
        ({"not_talk_threshold": "diff"}, r"is 'diff'; write a number"),
        ({"not_talk_threshold": "rise0.1"}, r"is 'rise0.1'; write a number"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"last_keep_len": 0}, r"last_keep_len must be at least 1"),
        ({"summary_max_length": 0}, r"summary_max_length must be at least 1"),
        ({"reserved_seq_len": 5000}, r"reserved_seq_len 5000 must be between 1 and eval_max"),
    ],
)
def test_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReferenceConfig(**setting)


def test_strategies_may_be_ours() -> None:
    assert ReferenceConfig(strategy=Strategy.SUMMARIZE).strategy == "summarize"
