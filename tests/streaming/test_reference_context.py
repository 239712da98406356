"""What is fed and kept when a session steps as the reference does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, FramesTurn, UserTurn
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.reference import ReferenceSession, reference_turn
from proassist_lit.streaming.reference_context import ReferenceConfig, ReferenceText, drop_middle
from tests.fakes import STEPS, dialogue, random_features, tiny_model
from tests.streaming.reference_sessions import (
    CONFIG,
    TURNS,
    chat,
    ids_of,
    open_session,
    play,
    speaking,
)


def test_last_generated_token_is_carried_before_what_a_user_says() -> None:
    formatter = chat(separator="<|sep|>")
    model = speaking(formatter, ["first wash peel fry"])
    session = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1.0, max_length=3))

    first = session.step(random_features(1)[0])
    session.step(random_features(1)[0], "how many")

    assert first.text == "first wash"
    assert session.last is not None
    assert session.last.frame.input_ids == ids_of(  # cut: the turn stays open
        formatter, "wash <|user|> how many <|end|> <image>"
    )
    quiet = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1e-9))
    quiet.step(random_features(1)[0])
    quiet.step(random_features(1)[0])
    assert quiet.last is not None
    assert quiet.last.frame.input_ids == ids_of(formatter, "<|sep|> <image>")


def test_bos_stands_only_before_messages_of_the_first_frame() -> None:
    formatter, bare = chat(), (FramesTurn(start=4, end=30),)
    frame = random_features(1)[0]

    session = open_session(tiny_model(dst=False), formatter, turns=bare)
    for heard_text, want in (("", "<image>"), ("wait", "<|user|> wait <|end|> <image>")):
        session.step(frame, heard_text)
        assert session.last is not None
        assert session.last.frame.input_ids[-len(ids_of(formatter, want)) :] == ids_of(
            formatter, want
        )
        assert ids_of(formatter, "<|begin|>")[0] not in session.last.frame.input_ids
    told = open_session(tiny_model(dst=False), formatter, turns=bare)
    told.step(frame, "wait")
    assert told.last is not None
    assert told.last.frame.input_ids == ids_of(formatter, "<|begin|> <|user|> wait <|end|> <image>")


def test_reference_context_carries_the_separator_after_silence() -> None:
    turns = (FramesTurn(start=4, end=5), UserTurn(content="wait"), FramesTurn(start=5, end=7),
             AssistantTurn(content="one"), FramesTurn(start=7, end=8))  # fmt: skip
    formatter = chat(separator="<|sep|>")
    config = replace(CONFIG, use_gt_context=True, not_talk_threshold=1.0)

    _, traces = play(open_session(speaking(formatter), formatter, config, turns=turns), turns)

    fed = [
        "<image>",
        "<|sep|> <|user|> wait <|end|> <image>",
        "<|sep|> <image>",
        "<|assistant|> one <|end|> <image>",
    ]
    assert [trace.frame.input_ids for trace in traces] == [ids_of(formatter, text) for text in fed]


def test_drop_all_forgets_the_prompt_and_keeps_what_waits() -> None:
    formatter = chat(separator="EOS")
    config = replace(CONFIG, strategy="drop_all", eval_max_seq_len=60, reserved_seq_len=20)
    outputs, traces = play(open_session(speaking(formatter), formatter, config))

    events = [t for t, trace in enumerate(traces[:-1]) if trace.event]
    assert events
    for t in events:
        assert outputs[t].event == "drop_all"
        assert traces[t].cache_end == traces[t + 1].frame.cache_in == 0
        assert traces[t + 1].frame.input_ids == ids_of(formatter, "<|end|> <image>")


def test_drop_middle_leaves_keys_where_they_were_rotated_to() -> None:
    generator = torch.Generator().manual_seed(1)
    cache = KVCache(2, capacity=4)
    whole = [torch.randn(2, 1, 2, 9, 4, generator=generator) for _ in range(2)]
    for layer, (keys, values) in zip(cache.layers, whole, strict=True):
        layer.update(keys, values)

    assert not drop_middle(cache, start=3, tail=10)  # shorter than the tail: whole, full or not
    assert not drop_middle(cache, start=3, tail=8)  # nothing lies between the two
    assert not drop_middle(cache, start=3, tail=6)
    assert len(cache) == 9
    assert drop_middle(cache, start=3, tail=2)

    assert len(cache) == 5
    for layer, (keys, values) in zip(cache.layers, whole, strict=True):
        kept = [0, 1, 2, 7, 8]
        assert torch.equal(layer.keys[:, :, :5], keys[:, :, kept])
        assert torch.equal(layer.values[:, :, :5], values[:, :, kept])


def test_drop_middle_keeps_all_up_to_the_first_words_of_a_user() -> None:
    formatter = chat()
    config = ReferenceConfig(
        strategy="drop_middle", eval_max_seq_len=60, reserved_seq_len=20, last_keep_len=10,
        max_length=8, not_talk_threshold=1.0,
    )  # fmt: skip
    _, traces = play(open_session(speaking(formatter), formatter, config))

    start = traces[0].frame.cache_out  # what was written at that frame among it
    assert start == len(traces[0].frame.input_ids) + len(traces[0].frame.output_ids) - 1
    assert {trace.init_cache for trace in traces} == {start}
    events = [trace for trace in traces if trace.event]
    assert {trace.event for trace in events} == {"drop_middle"}
    assert {trace.cache_end for trace in events} == {start + 10}
    for one, following in itertools.pairwise(traces):
        assert following.frame.cache_in == one.cache_end

    bare = (FramesTurn(start=4, end=30),)
    _, traces = play(open_session(speaking(formatter), formatter, config, turns=bare), bare)
    assert {trace.event for trace in traces} == {None, "drop_all"}  # there is no start to keep
    assert {trace.init_cache for trace in traces} == {None}


@pytest.mark.parametrize("talks", [True, False])
def test_summary_passes_the_decision_and_replaces_what_waits(talks: bool) -> None:
    formatter = chat(separator="EOS")
    model = speaking(formatter, ["well done"])
    with torch.no_grad():
        model.speak_head.net.bias.fill_(50.0 if talks else -50.0)
    config = replace(CONFIG, strategy="summarize", eval_max_seq_len=60, reserved_seq_len=20,
                     not_talk_threshold=1.0)  # fmt: skip
    _, traces = play(open_session(model, formatter, config))

    t = next(t for t, trace in enumerate(traces) if trace.event)
    trace = traces[t]
    assert trace.summary is not None
    assert trace.event == "summarize"
    assert trace.summary.input_ids == ids_of(  # the frame once more
        formatter, "<|system|> Please summarize the progress. <|end|> <image>"
    )
    assert trace.summary.cache_in == trace.frame.cache_out
    summary = "well done" if talks else ""  # empty where the head says so
    assert trace.summary_text == summary
    prompt = f"please help {summary} Task knowledge: wash. peel."
    assert trace.next_text == f"<|begin|><|system|>{prompt}<|end|>"
    assert trace.cache_end == 0
    assert traces[t + 1].frame.input_ids == ids_of(formatter, trace.next_text + "<image>")


def test_only_the_first_assistant_turn_after_a_frame_is_known() -> None:
    turns = (
        FramesTurn(start=0, end=1), AssistantTurn(content="one"), AssistantTurn(content="two"),
        FramesTurn(start=1, end=2), UserTurn(content="wait"), AssistantTurn(content="three"),
        FramesTurn(start=2, end=3),
    )  # fmt: skip
    moments = read_script(dialogue(turns, steps=()), PROASSIST).moments

    assert [reference_turn(moment.spans) for moment in moments] == ["one", None, None]


def test_only_users_and_system_are_heard() -> None:
    formatter, frame = chat(), random_features(1)[0]
    texts = [Text(role=Role.ASSISTANT, content="wait"), Text(role=Role.USER, content="how many")]

    both = open_session(tiny_model(dst=False), formatter).step(frame, texts)

    assert both == open_session(tiny_model(dst=False), formatter).step(frame, "how many")
    assert both.user_text == "how many"
    named = open_session(tiny_model(dst=False), formatter).step(frame, user_text="how many")
    assert named == both
    silence = open_session(tiny_model(dst=False), formatter).step(frame, None)
    assert silence == open_session(tiny_model(dst=False), formatter).step(frame)
    assert silence.user_text == ""


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("<|assistant|> first wash <|end|>", "first wash"),
        ("first wash", "first wash"),
        ("well <|assistant|> first <|assistant|> wash <|end|>", "first<|assistant|>wash"),
        ("<|user|> first <|end|> wash", "<|user|>first"),
        ("<|begin|> first <image> wash <|sep|> <|end|>", "firstwash"),
        ("<|end|>", ""),
    ],
)
def test_text_is_cleaned_as_in_the_reference(written: str, text: str) -> None:
    reader = ReferenceText(chat(separator="<|sep|>"))

    assert reader.clean(reader.tokenize(written)) == text


@pytest.mark.parametrize("name", ["compact", "chatml", "llama3", "gemma"])
def test_turns_equal_those_of_the_formatter(name: str) -> None:
    formatter = chat(name)

    for role in (Role.SYSTEM, Role.USER, Role.ASSISTANT):
        text = ReferenceText(formatter).turn(role, " first wash ")
        assert list(ids_of(formatter, text)) == formatter.turn_ids(role, "first wash")


def test_steps_and_their_state_are_told_and_never_change() -> None:
    formatter = chat()
    script = read_script(dialogue(TURNS, steps=STEPS), replace(PROASSIST, feed_updates=True))
    session = ReferenceSession(
        tiny_model(), formatter, script, CONFIG, fps=2.0, num_tokens_per_img=1
    )

    output = session.step(random_features(1)[0], heard(script, 0))

    assert session.last is not None
    told = ids_of(formatter, "please help Steps: S1: wash. S2: peel.")
    assert session.last.frame.input_ids[2 : 2 + len(told)] == told
    assert output.state == session.state == script.initial_state
    assert output.dst_prob is None
