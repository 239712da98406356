"""Where the reference's stepping agrees with our session, with the builder, and with itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, FramesTurn, Turn, UserTurn
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.reference import ReferenceSession
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput
from tests.fakes import Words, dialogue, random_features, tiny_model
from tests.streaming.reference_sessions import (
    CONFIG,
    TURNS,
    UTTERANCES,
    chat,
    open_session,
    play,
    speaking,
)


def ours(formatter: Chat, turns: tuple[Turn, ...]) -> list[FrameOutput]:
    """Our session's answers, with the same words behind an opening that is fed."""
    model = tiny_model(dst=False)
    model.words = Words(formatter, UTTERANCES, ["nonsense"])
    config = StreamConfig(
        theta_speak=0.5, theta_dst=0.5, max_new_tokens=8, max_dst_tokens=1,
        strategy=Strategy.NONE, max_context=4096, reserve=64,
    )  # fmt: skip
    script = read_script(dialogue(turns, steps=()))
    session = Session(model, formatter, script, config, fps=2.0, num_tokens_per_img=1,
                      start_frame_idx=4, name="kitchen")  # fmt: skip
    frames = random_features(len(script.moments))
    return [session.step(frame, heard(script, i)) for i, frame in enumerate(frames)]


def answers(outputs: list[FrameOutput]) -> list[tuple[int, float, bool, str]]:
    return [(o.frame_idx, o.time_s, o.speak, o.text) for o in outputs]


def test_with_the_end_of_turn_as_separator_both_give_the_same_answers() -> None:
    """Then the token that ends an utterance is carried, and silence is written as here."""
    formatter = chat(separator="EOS")

    theirs, _ = play(open_session(speaking(formatter), formatter))

    mine = ours(formatter, TURNS)
    assert answers(theirs) == answers(mine)
    assert {o.speak for o in theirs} == {True, False}
    assert {o.text for o in theirs} == {"", *UTTERANCES}
    probs = [torch.tensor([o.speak_prob for o in outputs]) for outputs in (theirs, mine)]
    torch.testing.assert_close(*probs, atol=1e-6, rtol=0)


def test_without_separator_both_agree_until_the_first_utterance_is_over() -> None:
    formatter = chat()
    turns = (*TURNS[:3], FramesTurn(start=4, end=5), UserTurn(content="how many"),
             FramesTurn(start=5, end=30))  # fmt: skip

    theirs, traces = play(open_session(speaking(formatter), formatter, turns=turns), turns)

    mine = ours(formatter, turns)
    first = next(t for t, output in enumerate(mine) if output.speak)
    assert 1 <= first < 20
    for one, other in zip(theirs[: first + 1], mine[: first + 1], strict=True):
        assert one.speak_prob == pytest.approx(other.speak_prob, abs=1e-6)
    assert theirs[first].text == mine[first].text == UTTERANCES[0]
    # The end of turn is lost: one token less, and another decision.
    assert theirs[first].context_len == mine[first].context_len - 1
    assert traces[first + 1].frame.input_ids == (formatter.image_id,)
    assert theirs[first + 1].speak_prob != pytest.approx(mine[first + 1].speak_prob, abs=1e-6)


def test_reference_context_without_separator_is_the_builders_sequence() -> None:
    turns = (
        *TURNS[:3], FramesTurn(start=4, end=8), AssistantTurn(content="first wash"),
        FramesTurn(start=8, end=9), UserTurn(content="how many"), FramesTurn(start=9, end=12),
        AssistantTurn(content="wait"), FramesTurn(start=12, end=14),
    )  # fmt: skip
    formatter = chat()
    config = replace(CONFIG, use_gt_context=True)

    outputs, traces = play(open_session(speaking(formatter), formatter, config, turns=turns), turns)

    fed = [token for trace in traces for token in trace.frame.input_ids]
    script = read_script(dialogue(turns, steps=()), PROASSIST)
    want = build_sequence(script, formatter, num_tokens_per_img=1, max_seq_len=1000)
    assert fed == want.input_ids.tolist()
    assert any(o.text for o in outputs)  # written all the same
    assert all(t.frame.cache_out == t.frame.cache_in + len(t.frame.input_ids) for t in traces)


def test_sessions_of_one_model_do_not_disturb_each_other() -> None:
    model, formatter = tiny_model(dst=False), chat()
    config = replace(CONFIG, not_talk_threshold="diff0.1")
    frames = [random_features(12, seed=seed) for seed in (0, 1)]

    def answer(session: ReferenceSession, i: int, t: int) -> tuple[FrameOutput, object]:
        return session.step(frames[i][t]), session.last

    alone = []
    for i in range(2):
        session = open_session(model, formatter, config)
        alone.append([answer(session, i, t) for t in range(12)])
    sessions = [open_session(model, formatter, config) for _ in frames]
    together = [[answer(sessions[i], i, t) for i in range(2)] for t in range(12)]

    assert [list(column) for column in zip(*together, strict=True)] == alone


def test_pictures_go_through_the_encoder() -> None:
    formatter, frame = chat(), random_features(1)[0]
    script = read_script(dialogue(TURNS, steps=()), PROASSIST)
    session = ReferenceSession(
        tiny_model(dst=False), formatter, script, CONFIG, fps=2.0, num_tokens_per_img=1,
        start_frame_idx=4, encode=lambda picture: frame,
    )  # fmt: skip

    seen = session.step(torch.zeros(2, 2, 3, dtype=torch.uint8))

    assert seen == open_session(tiny_model(dst=False), formatter).step(frame)
