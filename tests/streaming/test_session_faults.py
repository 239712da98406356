"""Settings and features that a session refuses; it stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.errors import ConfigError, FeatureError, StreamError
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.evaluate import stream_conversation
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.streaming.sessions import CONFIG, SMALL, open_session


def test_full_context_without_a_strategy_names_stream_and_frame() -> None:
    model, chat = tiny_model(), word_chat()
    config = replace(SMALL, theta_speak=1.0, theta_dst=1.0, strategy=Strategy.NONE)
    session = open_session(model, chat, config=config)
    room = 80 - 24 - session.context_len
    for frame in random_features(room):
        session.step(frame)

    for _ in range(2):  # the session stays as it was
        with pytest.raises(
            StreamError,
            match=rf"stream 'kitchen', frame {4 + room}: the context is full \(56 of 80 tokens, "
            r"24 kept in reserve\); raise stream\.max_context",
        ):
            session.step(random_features(1)[0])
    assert session.context_len == 56


@pytest.mark.parametrize("missing", ["theta_speak", "theta_dst"])
def test_session_refuses_unset_thresholds(missing: str) -> None:
    with pytest.raises(ConfigError, match=r"theta_speak and stream\.theta_dst are not set"):
        open_session(tiny_model(), word_chat(), config=replace(CONFIG, **{missing: None}))


def test_session_refuses_a_reserve_that_a_frame_may_exceed() -> None:
    chat = word_chat("chatml", separator=True)
    # 5 image tokens, a separator, two openings of 3, two closings of 2, 4 + 8 words
    needed = 5 + 1 + 6 + 4 + 12

    with pytest.raises(ConfigError, match=rf"reserve is {needed - 1}.*takes {needed} tokens"):
        open_session(tiny_model(), chat, config=replace(SMALL, reserve=needed - 1), k=5)
    open_session(tiny_model(), chat, config=replace(SMALL, reserve=needed), k=5)


def test_session_refuses_a_prompt_that_leaves_no_room() -> None:
    with pytest.raises(ConfigError, match=r"stream 'kitchen': the prompt .* stream\.max_context"):
        open_session(tiny_model(), word_chat(), config=replace(SMALL, max_context=34))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_session_refuses_features_that_are_not_finite(bad: float) -> None:
    session = open_session(tiny_model(), word_chat())
    features = random_features(2)
    first = session.step(features[0])
    broken = features[1].clone()
    broken[0, 3] = bad

    with pytest.raises(StreamError, match=r"stream 'kitchen', frame 5: features hold NaN"):
        session.step(broken)
    other = open_session(tiny_model(), word_chat())
    assert other.step(features[0]) == first
    assert session.step(features[1]) == other.step(features[1])  # it stayed as it was


def test_session_refuses_another_number_of_tokens_per_frame() -> None:
    session = open_session(tiny_model(), word_chat(), k=5)

    with pytest.raises(StreamError, match=r"frame 4: features are \(1, 6\), expected \(5, E\)"):
        session.step(random_features(1, 1)[0])
    with pytest.raises(StreamError, match=r"frame 4: features are \(6,\), expected"):
        session.step(random_features(1, 1)[0, 0])


def test_session_refuses_features_of_another_width_and_stays_as_it_was() -> None:
    session = open_session(tiny_model(), word_chat())

    with pytest.raises(FeatureError, match=r"^stream .*frame 4: features are 4 wide.*reads 6"):
        session.step(random_features(1)[0, :, :4])

    frame = random_features(1)[0]
    assert session.step(frame) == open_session(tiny_model(), word_chat()).step(frame)


def test_stream_conversation_refuses_too_few_features() -> None:
    with pytest.raises(FeatureError, match=r"train\.jsonl:1: .* 10 frames, but .* of 9 only"):
        stream_conversation(tiny_model(), word_chat(), dialogue(), random_features(9), CONFIG)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"theta_speak": 1.5}, r"stream\.theta_speak must be in \[0, 1\] or null, got 1\.5"),
        ({"theta_dst": -0.1}, r"stream\.theta_dst must be in"),
        ({"min_gap_frames": -1}, r"stream\.min_gap_frames must be at least 0, got -1"),
        ({"max_new_tokens": 0}, r"stream\.max_new_tokens must be at least 1, got 0"),
        ({"max_dst_tokens": 0}, r"stream\.max_dst_tokens must be at least 1, got 0"),
        ({"stride": 0}, r"stream\.stride must be at least 1, got 0"),
        ({"window_tokens": 0}, r"stream\.window_tokens must be at least 1, got 0"),
        ({"max_summary_tokens": 0}, r"stream\.max_summary_tokens must be at least 1, got 0"),
        ({"kv_gib": 0.0}, r"stream\.kv_gib must be > 0, got 0\.0"),
        ({"rise": 1.5}, r"stream\.rise must be in \[0, 1\] or null, got 1\.5"),
        ({"rise": -0.1}, r"stream\.rise must be in"),
        ({"reread_margin": 0.5}, r"stream\.reread_margin must be in \[0, 0\.5\) or null, got 0\.5"),
        ({"reread_margin": -0.1}, r"stream\.reread_margin must be in"),
        ({"words": False}, r"stream\.words=false needs stream\.context=reference"),
        ({"reserve": 9000}, r"stream\.reserve 9000 must be between 1 and stream\.max_context"),
    ],
)
def test_stream_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**setting)
