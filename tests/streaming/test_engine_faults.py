"""Streams that cannot be answered are named; the others finish."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from proassist_lit.data.conversation import FramesTurn, UserTurn
from proassist_lit.errors import StreamError
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.streaming.recording import Recording
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.streaming.engines import CONFIG, assert_equal, by_engine, by_session, talk


def test_bad_streams_are_named_and_the_others_finish() -> None:
    model, chat = tiny_model(), word_chat()
    records = [talk(i, 20) for i in range(4)]
    features = [random_features(20, 1, seed=i) for i in range(4)]
    features[1] = features[1].clone()
    features[1][7, 0, 2] = float("nan")
    features[2] = features[2][:10]
    config = replace(CONFIG, theta_speak=0.9, theta_dst=0.9)

    answered = by_engine(model, chat, records, features, config, num_slots=2)

    assert [a.error is None for a in answered] == [True, False, False, True]
    assert "video1" in str(answered[1].error)
    assert "frame 7: features hold NaN" in str(answered[1].error)
    assert len(answered[1].frames) == 7  # what it had said is kept
    assert "watches 20 frames, but there are features of 10" in str(answered[2].error)
    for i in (0, 3):
        assert_equal(answered[i].frames, by_session(model, chat, records[i], features[i], config),
                     1e-6)  # fmt: skip


def test_a_full_slot_and_a_long_text_are_named() -> None:
    model, chat = tiny_model(), word_chat()
    records = [talk(0, 60), dialogue((FramesTurn(start=0, end=2), UserTurn(content="wait " * 200),
                                      FramesTurn(start=2, end=4)))]  # fmt: skip
    features = [random_features(60, 1), random_features(4, 1)]
    config = replace(CONFIG, theta_speak=1.0, theta_dst=1.0, strategy=Strategy.NONE,
                     max_context=100)  # fmt: skip

    full, long = by_engine(model, chat, records, features, config)

    assert isinstance(full.error, StreamError)
    assert re.search(
        r"stream .*video0.*: its 60 frames are too many for stream.strategy=none, even if nothing "
        r"is said: .* frame \d+: the context is full .*choose a stream.strategy", str(full.error)
    )  # fmt: skip
    assert not full.frames  # it was not begun
    with pytest.raises(StreamError, match="even if nothing is said"):
        stream_conversation(model, chat, records[0], features[0], config)
    assert "frame 2: the text that arrives takes 202 tokens" in str(long.error)
    assert len(long.frames) == 2  # those before are answered, as by a session


def test_a_slot_that_is_full_of_words_keeps_what_was_answered() -> None:
    model, chat = tiny_model(), word_chat()
    config = replace(CONFIG, theta_speak=0.0, theta_dst=1.0, strategy=Strategy.NONE,
                     max_context=300)  # fmt: skip

    [full] = by_engine(model, chat, [talk(0, 60)], [random_features(60, 1)], config)

    assert "the context is full" in str(full.error)
    assert "even if" not in str(full.error)
    assert len(full.frames) > 10


def test_a_stream_without_frames_is_refused() -> None:
    model, chat = tiny_model(), word_chat()
    empty = Recording(name="empty", script=replace(read_script(talk(0, 4)), moments=[]),
                      features=lambda: random_features(0, 1), fps=2.0)  # fmt: skip

    [answered] = Engine(model, chat, CONFIG, num_tokens_per_img=1).run([empty])

    assert "stream 'empty': has no frames" in str(answered.error)
