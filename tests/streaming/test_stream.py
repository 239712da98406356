"""The definition of streaming by itself, with a writer in place of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.data.conversation import (
    AssistantTurn,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.errors import StreamError
from proassist_lit.sequence.builder import build_sequence, prefix_ids
from proassist_lit.sequence.chat import FORMATS, Role
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import Script, Text, read_script
from proassist_lit.streaming.arrivals import Said, arriving, heard
from proassist_lit.streaming.config import ContextSource, Strategy, StreamConfig
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import FrameOutput, StepState, Transition, Update
from tests.fakes import dialogue, word_chat

CONFIG = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=8, max_dst_tokens=8)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("separator", [False, True])
def test_who_writes_what_training_showed_is_fed_what_training_showed(
    name: str, separator: bool
) -> None:
    turns = (
        SystemTurn(content="please help"),
        FramesTurn(start=0, end=2),
        DstTurn(updates=(Update("S1", Transition.COMPLETE), Update("S2", Transition.START))),
        FramesTurn(start=2, end=4),
        UserTurn(content="how many"),
        FramesTurn(start=4, end=5),
        AssistantTurn(content="one of two"),
        DstTurn(updates=(Update("S2", Transition.COMPLETE),)),
        FramesTurn(start=5, end=7),
    )
    script, chat = read_script(dialogue(turns)), word_chat(name, separator=separator)
    built = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=999).input_ids.tolist()
    stream = Stream(chat, script, CONFIG, fps=2.0, num_tokens_per_img=1, has_dst=True)

    fed: list[int] = []
    outputs = []
    for index, moment in enumerate(script.moments):
        fed += [*stream.begin(heard(script, index)), chat.image_id]
        stream.decide(float(moment.speak_label or 0), float(moment.dst_label or 0))
        while (ids := stream.feed()) is not None:
            fed += ids
            stream.take(built[len(fed)])
        outputs.append(stream.end())

    assert fed == built
    assert [(o.text, o.updates, o.state) for o in outputs] == [
        (r.text, r.updates, r.state) for r in references(script)
    ]


def reference_stream(script: Script, strategy: Strategy) -> Stream:
    config = replace(
        CONFIG, context=ContextSource.REFERENCE, words=False, strategy=strategy,
        max_context=120, reserve=60, window_tokens=20, max_summary_tokens=6,
    )  # fmt: skip
    return Stream(word_chat(), script, config, fps=2.0, num_tokens_per_img=1, has_dst=True)


def watch(stream: Stream, script: Script, index: int) -> FrameOutput:
    """One frame at which the model would say nothing."""
    stream.begin(*arriving(script, index))
    stream.decide(0.0, 0.0)
    while stream.feed() is not None:
        stream.take(stream.chat.end_of_turn_id)
    return stream.end()


def test_updates_of_the_reference_before_a_frame_reach_its_state() -> None:
    late = DstTurn(updates=(Update("S1", Transition.START),))
    talk = (FramesTurn(start=0, end=5), UserTurn(content="how many"), late)
    script = read_script(dialogue((*talk, FramesTurn(start=5, end=80))))
    stream = reference_stream(script, Strategy.DST_REFRESH)

    index = next(i for i in range(80) if watch(stream, script, i).event)

    state = references(script)[index].state
    assert state["S1"] is StepState.IN_PROGRESS
    assert stream.prefix + stream.pending == prefix_ids(stream.chat, script, state)


def test_frames_between_updates_share_one_state() -> None:
    update = DstTurn(updates=(Update("S1", Transition.START),))
    script = read_script(dialogue((FramesTurn(start=0, end=2), update, FramesTurn(start=2, end=4))))
    expected = references(script)
    stream = Stream(word_chat(), script, CONFIG, fps=2.0, num_tokens_per_img=1, has_dst=True)
    outputs = [watch(stream, script, 0), watch(stream, script, 1)]

    stream.begin()
    stream.decide(0.0, 1.0)
    words = iter([*stream.chat.encode("S1->start"), stream.chat.end_of_turn_id])
    while stream.feed() is not None:
        stream.take(next(words))
    outputs += [stream.end(), watch(stream, script, 3)]

    for states in ([o.state for o in outputs], [expected[i].state for i in (0, 0, 1, 2)]):
        assert states[0] is states[1]
        assert states[2] is states[3]
        assert [s["S1"] for s in states[1:3]] == [StepState.NOT_STARTED, StepState.IN_PROGRESS]


@pytest.mark.parametrize(
    ("strategy", "frame", "message"),
    [
        (Strategy.SUMMARIZE, 19, r"what the reference says takes 92 tokens, but only \d+ are left"),
        (Strategy.DROP_MIDDLE, 20, r"what the reference said and the text that arrives take 92 to"),
    ],
)
def test_a_span_of_the_reference_that_the_context_has_no_room_for_is_refused(
    strategy: Strategy, frame: int, message: str
) -> None:
    long = AssistantTurn(content="wash " * 90)
    script = read_script(
        dialogue((FramesTurn(start=0, end=20), long, FramesTurn(start=20, end=40)))
    )
    stream = reference_stream(script, strategy)
    for index in range(frame):
        watch(stream, script, index)

    for _ in range(2):  # it stays as it was
        with pytest.raises(StreamError, match=rf"frame {frame}: {message}"):
            watch(stream, script, frame)


@pytest.mark.parametrize("strategy", [Strategy.DROP_ALL, Strategy.DST_REFRESH])
def test_who_decides_on_no_updates_is_told_no_steps(strategy: Strategy) -> None:
    script, chat = read_script(dialogue()), word_chat()
    config = replace(CONFIG, strategy=strategy, max_context=64, reserve=32)
    stream = Stream(chat, script, config, fps=2.0, num_tokens_per_img=1, has_dst=False)
    prompt = [*chat.bos_ids, *chat.turn_ids(Role.SYSTEM, "please help")]

    outputs = []
    for _ in range(60):
        stream.begin()
        assert stream.prefix == prompt  # after a cut, too
        stream.decide(0.0, 1.0)
        stream.cut = None
        outputs.append(stream.end())

    assert any(output.event for output in outputs)
    assert not any(output.dst for output in outputs)


@pytest.mark.parametrize("words", ["one of two now", ""], ids=["words", "silence"])
@pytest.mark.parametrize("source", ContextSource)
def test_of_a_tail_of_which_nothing_stays_its_end_does_not_either(
    words: str, source: ContextSource
) -> None:
    chat, k = word_chat("chatml", separator=True), 5
    script = read_script(dialogue((FramesTurn(start=0, end=80),)))
    config = replace(
        CONFIG, context=source, words=True, strategy=Strategy.DROP_MIDDLE, max_context=140,
        reserve=60, window_tokens=3,
    )  # fmt: skip
    stream = Stream(chat, script, config, fps=2.0, num_tokens_per_img=k, has_dst=True)
    # What the reference says is nothing to a stream that has words of its own.
    spans = (Text(role=Role.ASSISTANT, content="one of two"),)
    said = Said(spans=spans if source is ContextSource.OWN else ())
    cut = None
    while cut is None:
        stream.begin((), said)
        stream.decide(float(bool(words)), 0.0)
        answer = [*chat.encode(words), chat.end_of_turn_id]
        while stream.feed() is not None:
            stream.take(answer.pop(0))
        if stream.end().event:
            cut, stream.cut = stream.cut, None
        else:
            stream.cut = None  # words of its own, where the reference makes the context

    prefix = len(prefix_ids(chat, script, script.initial_state))
    assert stream.length == prefix
    assert cut.keep[0] == (0, prefix)
    assert stream.begin((), said) == []  # the next frame follows the prefix
    assert stream.length == prefix + k
