"""What a strategy keeps must leave room for frames, or it would run at every one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.data.conversation import (
    AssistantTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import prefix_ids
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import Script, Text, read_script
from proassist_lit.streaming.arrivals import heard, opening
from proassist_lit.streaming.config import ContextSource, Strategy, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.streaming.recording import Recording
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import FrameOutput
from tests.fakes import dialogue, random_features, tiny_model, word_chat

CONFIG = StreamConfig(
    theta_speak=0.5, theta_dst=0.5, max_new_tokens=3, max_dst_tokens=3, reserve=60,
    window_tokens=20, max_summary_tokens=6,
)  # fmt: skip
CUTTING = [s for s in Strategy if s is not Strategy.NONE]


def words(number: int) -> str:
    return " ".join(["wash"] * number)


def told(prompt: int, knowledge: int, *turns: Turn, at: int = 0) -> tuple[Turn, ...]:
    """A talk that begins with so many words of prompt, and of knowledge, told before frame at."""
    known = SystemTurn(content=f"Task knowledge: {words(knowledge)}")
    first = (FramesTurn(start=0, end=at),) if at else ()
    return SystemTurn(content=words(prompt)), *first, known, *turns, FramesTurn(start=at, end=40)


def begin(chat: Chat, script: Script, config: StreamConfig, k: int) -> Stream:
    return Stream(chat, script, config, fps=2.0, num_tokens_per_img=k, has_dst=True,
                  opening=opening(script, config.context))  # fmt: skip


def watch(stream: Stream, texts: tuple[Text, ...], update: str = "") -> FrameOutput:
    """One frame; with an update it is written and something said. Summaries are the longest."""
    stream.begin(texts)
    stream.decide(float(bool(update)), float(bool(update)))
    left = stream.chat.encode(update)
    word, end = stream.chat.encode("wait")[0], stream.chat.end_of_turn_id
    while stream.feed() is not None:
        if stream.writes_dst:
            stream.take(left.pop(0) if left else end)
        else:
            stream.take(word)
    return stream.end()


@pytest.mark.parametrize("strategy", CUTTING)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(
    ("name", "separator"), [("compact", False), ("compact", True), ("chatml", False)]
)
@pytest.mark.parametrize("at", [0, 2])
def test_no_strategy_that_is_let_begin_runs_at_one_silent_frame_after_the_other(
    at: int, strategy: Strategy, k: int, name: str, separator: bool
) -> None:
    chat = word_chat(name, separator=separator)
    script = read_script(dialogue(told(4, 9, UserTurn(content="make soup"), at=at)))
    config = replace(CONFIG, strategy=strategy)

    for most in range(CONFIG.reserve + 1, 200):
        try:
            stream = begin(chat, script, replace(config, max_context=most), k)
        except ConfigError as error:
            assert "leaves no room for frames" in str(error)  # noqa: PT017
        else:
            break
    updates = ["S1->start", "S2->start"]
    events = [
        watch(stream, heard(script, i) if i <= at else (), update).event is not None
        for i, update in enumerate(updates + [""] * 60)
    ]

    assert sum(events) > 2
    silent = range(max(len(updates), at + 1), len(events))  # nothing is told any more
    assert not any(events[i - 1] and events[i] for i in silent)


@pytest.mark.parametrize(
    ("prompt", "knowledge", "k", "changes", "message"),
    [
        (90, 450, 1,
         {"strategy": Strategy.DROP_MIDDLE, "max_context": 2048, "window_tokens": 1024},
         r"told with it take 5\d\d tokens and stream\.window_tokens 1024 more, which leaves no"),
        (190, 320, 1, {"strategy": Strategy.DST_REFRESH, "max_context": 1024},
         r"told with it take 5\d\d tokens, which leaves no room for frames of 1 in stream\.max_c"),
        (190, 320, 1, {"strategy": Strategy.DROP_ALL, "max_context": 1024}, "leaves no room"),
        (190, 250, 1,
         {"strategy": Strategy.SUMMARIZE, "max_context": 1024, "max_summary_tokens": 64},
         "and a summary up to 64 more, which leaves no room"),
    ],
    ids=["drop_middle", "dst_refresh", "drop_all", "summarize"],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 7])
def test_knowledge_that_stays_is_counted(
    at: int, prompt: int, knowledge: int, k: int, changes: dict, message: str
) -> None:
    config, chat = replace(CONFIG, reserve=512, **changes), word_chat()
    talk, features = dialogue(told(prompt, knowledge, at=at)), random_features(40, k)
    if at and config.strategy is Strategy.DROP_MIDDLE:  # it keeps the beginning alone
        begin(chat, read_script(talk), config, k)
        return
    script = read_script(talk)
    recording = Recording(name="kitchen", script=script, features=lambda: features, fps=2.0)

    begin(chat, replace(script, moments=[]), config, k)  # of the prompt alone there is room
    with pytest.raises(ConfigError, match=message):
        stream_conversation(tiny_model(), chat, talk, features, config)
    engine = Engine(tiny_model(), chat, config, num_tokens_per_img=k)
    (answered,) = engine.run([recording])
    assert "leaves no room" in str(answered.error)


def test_the_frame_itself_is_counted() -> None:
    talk = SystemTurn(content=words(4)), FramesTurn(start=0, end=40)
    chat, script = word_chat(), read_script(dialogue(talk))
    prefix = len(prefix_ids(chat, script, script.initial_state))
    config = replace(CONFIG, strategy=Strategy.DROP_MIDDLE, window_tokens=49, reserve=60)
    config = replace(config, max_context=60 + prefix + 50)

    with pytest.raises(ConfigError, match="leaves no room for frames of 2 in"):
        begin(chat, script, config, 2)
    begin(chat, script, replace(config, max_context=config.max_context + 3), 2)


def test_what_opens_a_stream_is_what_it_is_told_at_its_first_frame() -> None:
    said = UserTurn(content="make soup"), AssistantTurn(content="well done")
    script = read_script(dialogue(told(4, 9, *said)))
    knowledge, user, assistant = script.moments[0].before

    assert opening(script, ContextSource.OWN) == (knowledge, user)
    assert opening(script, ContextSource.REFERENCE) == (knowledge, user, assistant)
    assert opening(replace(script, moments=[]), ContextSource.OWN) == ()
