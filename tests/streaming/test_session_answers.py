"""What a session answers, and on what that depends: what was seen and heard until then."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, DstTurn, FramesTurn, UserTurn
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.types import FrameOutput, StepState, Transition, Update
from tests.fakes import DIALOGUE, STEPS, Words, dialogue, random_features, tiny_model, word_chat
from tests.streaming.sessions import (
    CONFIG,
    DST,
    NUM_FRAMES,
    UTTERANCES,
    open_session,
    play,
    user_talk,
)


@pytest.mark.parametrize("k", [1, 5])
def test_no_decision_sees_the_reference(k: int) -> None:
    model, chat = tiny_model(), word_chat(separator=True)
    other = (
        *DIALOGUE[:2],
        FramesTurn(start=10, end=12),
        DstTurn(updates=(Update("S2", Transition.COMPLETE),)),
        FramesTurn(start=12, end=13),
        AssistantTurn(content="wait"),
        AssistantTurn(content="use the knife"),
        FramesTurn(start=13, end=17),
        UserTurn(content="how many"),
        AssistantTurn(content="it is all good"),
        FramesTurn(start=17, end=20),
        AssistantTurn(content="three"),
    )
    bare = tuple(t for t in DIALOGUE if not isinstance(t, AssistantTurn | DstTurn))
    transcripts = [
        stream_conversation(model, chat, dialogue(turns), random_features(10, k), CONFIG)
        for turns in (DIALOGUE, other, bare)
    ]

    assert {f.speak for f in transcripts[0].frames} == {True, False}
    assert transcripts[0].frames == transcripts[1].frames == transcripts[2].frames
    assert transcripts[0].references != transcripts[1].references
    assert transcripts[0].frames[7].user_text == "how many"


def test_later_frames_change_nothing_earlier() -> None:
    model, chat = tiny_model(), word_chat()
    features = random_features(NUM_FRAMES)
    changed = torch.cat([features[:12], random_features(NUM_FRAMES - 12, seed=9)])
    one, two = (play(open_session(model, chat), f) for f in (features, changed))

    assert one[:12] == two[:12]
    assert one[12].speak_prob != two[12].speak_prob


def test_sessions_of_one_model_do_not_disturb_each_other() -> None:
    model, chat, features = tiny_model(), word_chat(), random_features(6)
    alone = [play(open_session(model, chat), f) for f in (features, features.flip(0))]
    sessions = [open_session(model, chat) for _ in alone]
    script = read_script(dialogue(user_talk(6)))
    together: list[list[FrameOutput]] = [[], []]
    for i in range(6):
        for session, outputs, source in zip(
            sessions, together, (features, features.flip(0)), strict=True
        ):
            outputs.append(session.step(source[i], heard(script, i)))

    assert together == alone


def test_output_reports_time_words_and_state() -> None:
    model, chat = tiny_model(), word_chat()
    spans = ("S1->start;S9->start", "nonsense", "S1->start;S1->complete")
    chat.tokenizer._ids |= {s: len(chat.tokenizer.words) + i for i, s in enumerate(spans)}
    chat.tokenizer.words += spans
    model.lm.resize_token_embeddings(len(chat.tokenizer), mean_resizing=False)
    model.words = Words(chat, UTTERANCES, spans)
    config = replace(CONFIG, theta_speak=1.0, theta_dst=0.0)
    session = open_session(model, chat, config=config)
    outputs = [
        session.step(frame, words)
        for frame, words in zip(random_features(3), ("", "how many", ""), strict=True)
    ]

    assert [(o.frame_idx, o.time_s) for o in outputs] == [(4, 2.0), (5, 2.5), (6, 3.0)]
    assert [o.speak for o in outputs] == [False] * 3
    assert [o.text for o in outputs] == [""] * 3
    assert [o.dst_invalid for o in outputs] == [1, 1, 1]
    assert [o.state["S1"] for o in outputs] == [
        StepState.IN_PROGRESS, StepState.IN_PROGRESS, StepState.COMPLETED
    ]  # fmt: skip
    assert outputs[0].updates == (
        Update("S1", Transition.START),
        Update("S9", Transition.START),
    )
    assert outputs[1].updates == ()
    assert [o.user_text for o in outputs] == ["", "how many", ""]


def test_words_of_a_user_may_be_given_as_plain_text() -> None:
    model, chat, frame = tiny_model(), word_chat(), random_features(1)[0]

    plain = open_session(model, chat).step(frame, "how many")
    turns = open_session(model, chat).step(frame, [Text(role=Role.USER, content="how many")])
    named = open_session(model, chat).step(frame, user_text="how many")
    silence = open_session(model, chat).step(frame)

    assert plain == turns == named
    assert silence == open_session(model, chat).step(frame, user_text=None)
    assert silence == open_session(model, chat).step(frame, None)
    assert plain.speak_prob != silence.speak_prob


def test_minimum_gap_holds_in_a_stream() -> None:
    model, chat = tiny_model(), word_chat()
    model.words = Words(chat, UTTERANCES, DST)
    config = replace(CONFIG, theta_speak=0.0, theta_dst=1.0, min_gap_frames=2)
    outputs = play(open_session(model, chat, config=config), random_features(10))

    assert [o.speak for o in outputs] == [True, False, False] * 3 + [True]


@pytest.mark.parametrize("dst", [True, False])
def test_without_steps_or_head_the_state_is_left_alone(dst: bool) -> None:
    model, chat = tiny_model(dst=dst), word_chat()
    config = replace(CONFIG, theta_speak=1.0, theta_dst=0.0)
    session = open_session(model, chat, config=config, steps=() if dst else STEPS)

    output = session.step(random_features(1)[0])

    assert output.dst_prob is None
    assert not output.dst


def test_stream_conversation_reports_every_frame_as_it_comes() -> None:
    seen: list[FrameOutput] = []
    transcript = stream_conversation(
        tiny_model(), word_chat(), dialogue(), random_features(), CONFIG, on_frame=seen.append
    )

    assert tuple(seen) == transcript.frames
    assert [f.frame_idx for f in seen] == list(range(10, 20))
    assert transcript.steps == (("S1", "wash"), ("S2", "peel"))
    assert transcript.references[0].text == "first wash"
