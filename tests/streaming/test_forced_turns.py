"""Turns of the reference, teacher-forced, against full forwards of what would have been fed."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F

from proassist_lit.data.conversation import (
    AssistantTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Script, read_script
from proassist_lit.streaming.config import SpeakRule
from proassist_lit.streaming.forced_turns import ForcedTurn, forced_turns
from proassist_lit.streaming.policy import DecisionPolicy
from tests.fakes import ScriptedModel, dialogue, random_features, tiny_model, word_chat

LONG = 4096


def probs(model: ScriptedModel, chat: Chat, script: Script, features: torch.Tensor) -> list[float]:
    """P(speak) of every frame, each by a forward of its own."""
    sequence = build_sequence(script, chat, num_tokens_per_img=features.shape[1], max_seq_len=LONG)
    out = []
    for frame, position in enumerate(sequence.decision_positions.tolist()):
        with torch.no_grad():
            embeds = model.embed(
                sequence.input_ids[None, : position + 1],
                sequence.image_mask[None, : position + 1],
                features[: frame + 1].flatten(0, 1),
            )
            out.append(float(model.speak_head(model.hidden_states(embeds)[0, -1]).sigmoid()))
    return out


def silenced(script: Script, frame: int, until: int) -> Script:
    """Nothing is said from ``frame`` on; the stream ends after ``until``."""
    moments = [
        replace(m, spans=tuple(s for s in m.spans if s.role is Role.DST)) if i >= frame else m
        for i, m in enumerate(script.moments[: until + 1])
    ]
    return replace(script, moments=moments, after=())


def decides(script: Script, frame: int, stride: int, gap: int) -> bool:
    """Whether a stream may speak there: at every so many frames since a span, not soon after one
    that spoke."""
    before = script.moments[:frame]
    span = max((i for i, m in enumerate(before) if m.spans), default=-1)
    utterance = max((i for i, m in enumerate(before) if m.utterance), default=-99)
    return (frame - span) % stride == 0 and frame - utterance > gap


def by_definition(
    model: ScriptedModel,
    chat: Chat,
    script: Script,
    features: torch.Tensor,
    theta: float,
    *,
    summed: bool = False,
    stride: int = 1,
    gap: int = 0,
) -> list[tuple[int, int]]:
    """(S, late frames) of every turn, one full forward at a time."""
    lasts = [i for i, m in enumerate(script.moments) if m.utterance]
    forced = probs(model, chat, script, features)
    out = []
    for number, last in enumerate(lasts):
        first = lasts[number - 1] + 1 if number else 0
        size = last + 1 - first
        before = forced[first : last + 1]
        values = list(accumulate(before)) if summed else before
        early = [
            i for i, value in enumerate(values, first)
            if value >= theta and decides(script, i, stride, gap)
        ]  # fmt: skip
        if early:
            out.append((size, early[0] - last))
            continue
        end = lasts[number + 1] if number + 1 < len(lasts) else len(script.moments) - 1
        ahead = min(size - 1, end - last)
        waiting = silenced(script, last, last + ahead)
        went = probs(model, chat, waiting, features)[last + 1 :]
        if summed:
            went = list(accumulate(went, initial=values[-1]))[1:]
        spoke = [
            i for i, p in enumerate(went, 1)
            if p >= theta and decides(waiting, last + i, stride, gap)
        ]  # fmt: skip
        out.append((size, spoke[0] if spoke else ahead))
    return out


@pytest.mark.parametrize("separator", [False, True])
@pytest.mark.parametrize("k", [1, 5])
def test_turns_are_those_of_full_forwards(k: int, separator: bool) -> None:
    model, chat = tiny_model(), word_chat("chatml", separator=separator)
    script, features = read_script(dialogue()), random_features(10, k)
    spread = sorted(probs(model, chat, script, features))
    kinds = set()
    for theta in (0.0, *spread, 1.1):
        turns = forced_turns(
            model, chat, script, features, theta_speak=theta - 1e-6, max_seq_len=LONG
        )
        expected = by_definition(model, chat, script, features, theta - 1e-6)
        assert [(turn.num_frames, turn.late_frames) for turn in turns] == expected
        kinds |= {(late > 0) - (late < 0) for _, late in expected}
    assert kinds == {-1, 0, 1}  # all ways were met


def test_turns_by_a_running_sum_are_those_of_full_forwards() -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)
    kinds = set()
    for theta in (0.2, 0.6, 1.1, 1.6, 2.1, 2.6, 99.0):
        turns = forced_turns(
            model, chat, script, features,
            theta_speak=theta, max_seq_len=LONG, policy=DecisionPolicy(rule=SpeakRule.RUNNING_SUM),
        )  # fmt: skip
        expected = by_definition(model, chat, script, features, theta, summed=True)
        assert [(turn.num_frames, turn.late_frames) for turn in turns] == expected
        kinds |= {(late > 0) - (late < 0) for _, late in expected}
    assert kinds == {-1, 0, 1}


@pytest.mark.parametrize(("stride", "gap"), [(2, 0), (3, 0), (1, 2), (2, 3)])
def test_turns_begin_at_frames_where_streams_decide(stride: int, gap: int) -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)
    policy = DecisionPolicy(stride=stride, min_gap_frames=gap)
    everywhere = []
    for theta in (0.0, *sorted(probs(model, chat, script, features))):
        options = {"theta_speak": theta - 1e-6, "max_seq_len": LONG}
        turns = forced_turns(model, chat, script, features, policy=policy, **options)
        found = [(turn.num_frames, turn.late_frames) for turn in turns]
        assert found == by_definition(
            model, chat, script, features, theta - 1e-6, stride=stride, gap=gap
        )
        plain = forced_turns(model, chat, script, features, **options)
        everywhere.append(found == [(turn.num_frames, turn.late_frames) for turn in plain])
    assert not all(everywhere)


def test_turns_begin_where_the_probability_rises() -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)
    with torch.no_grad():
        model.speak_head.net.bias -= 0.5  # so that one half is reached at a few frames only
    forced = probs(model, chat, script, features)
    rise = sorted(after - before for before, after in pairwise(forced))[-3] - 1e-6

    turns = forced_turns(
        model, chat, script, features, theta_speak=0.0, max_seq_len=LONG, rise=rise
    )

    lasts = [i for i, m in enumerate(script.moments) if m.utterance]
    fires = [p >= 0.5 for p in forced]
    for i, (before, after) in enumerate(pairwise(forced), 1):
        fires[i] |= after - before > rise
    early = 0
    for first, last, turn in zip([0, *(i + 1 for i in lasts)], lasts, turns, strict=False):
        if True in fires[first : last + 1]:
            early += 1
            assert turn.late_frames == fires.index(True, first) - last
        else:
            assert turn.late_frames >= 0
    assert 0 < early < len(turns)  # by the threshold alone it would speak at every first frame


def test_words_of_an_utterance_before_the_next_frame_are_no_words_of_the_turn() -> None:
    def turns(*between: Turn) -> tuple[Turn, ...]:
        return (
            SystemTurn(content="please help"), FramesTurn(start=0, end=3),
            AssistantTurn(content="well done"), *between, FramesTurn(start=3, end=6),
            AssistantTurn(content="now peel"), *between,
        )  # fmt: skip

    def go(*between: Turn) -> list[ForcedTurn]:
        return forced_turns(
            tiny_model(), word_chat(), read_script(dialogue(turns(*between))), random_features(6),
            theta_speak=0.99, max_seq_len=LONG,
        )  # fmt: skip

    late = go(UserTurn(content="how many"), AssistantTurn(content="it is all good now wait"))

    assert [turn.num_words for turn in late] == [3, 3]
    assert late[0].cross_entropy == pytest.approx(go()[0].cross_entropy)


def test_words_are_scored_by_the_context_of_the_reference() -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)
    sequence = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=LONG)
    with torch.no_grad():
        embeds = model.embed(
            sequence.input_ids[None], sequence.image_mask[None], features.flatten(0, 1)
        )
        logits = model.lm_logits(model.hidden_states(embeds)[0])
    decisions = [*sequence.decision_positions.tolist(), len(sequence.labels)]
    expected = []
    for i, moment in enumerate(script.moments):
        if moment.utterance:
            words = [
                p for p in range(decisions[i] + 1, decisions[i + 1]) if sequence.labels[p] != -100
            ]
            losses = [float(F.cross_entropy(logits[p - 1], sequence.labels[p])) for p in words]
            hits = [int(logits[p - 1].argmax()) == int(sequence.labels[p]) for p in words]
            leading = hits.index(False) if False in hits else len(hits)
            expected.append((len(words), leading, sum(losses) / len(losses)))

    turns = forced_turns(model, chat, script, features, theta_speak=0.5, max_seq_len=LONG)

    assert len(expected) > 1
    assert [(t.num_words, t.num_right_words) for t in turns] == [(w, r) for w, r, _ in expected]
    assert [t.cross_entropy for t in turns] == pytest.approx([ce for _, _, ce in expected])


def test_a_word_after_a_wrong_one_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)
    sequence = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=LONG)
    words = [p for p in range(len(sequence.labels)) if sequence.labels[p] != -100]
    wrong = words[1]

    def logits(hidden: torch.Tensor, *, dst: bool = False) -> torch.Tensor:
        out = torch.zeros(len(hidden), len(chat.tokenizer))
        for row, place in enumerate(words):
            out[row, 0 if place == wrong else int(sequence.labels[place])] = 9.0
        return out

    monkeypatch.setattr(model, "lm_logits", logits)
    first, *others = forced_turns(model, chat, script, features, theta_speak=0.5, max_seq_len=LONG)

    assert first.num_words == 3
    assert first.num_right_words == 1
    assert all(turn.num_right_words == turn.num_words for turn in others)


def test_what_writes_is_made_only_where_words_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made = "proassist_lit.streaming.forced_turns.make_decoder"
    monkeypatch.setattr(made, lambda *_: pytest.fail("a decoder is made"))
    script, features = read_script(dialogue()), random_features(10)
    assert forced_turns(
        tiny_model(), word_chat(), script, features, theta_speak=0.5, max_seq_len=LONG
    )


def test_a_long_conversation_is_gone_through_as_far_as_it_fits() -> None:
    model, chat = tiny_model(), word_chat()
    script, features = read_script(dialogue()), random_features(10)

    def turns(most: int) -> list[ForcedTurn]:
        return forced_turns(model, chat, script, features, theta_speak=0.5, max_seq_len=most)

    whole, cut = turns(LONG), turns(40)
    assert 0 < len(cut) < len(whole)
    assert [t.num_words for t in cut] == [t.num_words for t in whole[: len(cut)]]


@pytest.mark.parametrize("name", ["compact", "chatml"])  # without and with supervised openings
def test_what_is_written_at_a_turn_is_greedy_after_the_reference(name: str) -> None:
    model, chat, most = tiny_model(), word_chat(name), 4
    script, features = read_script(dialogue()), random_features(10)

    turns = forced_turns(
        model, chat, script, features, theta_speak=1.1, max_seq_len=LONG, max_new_tokens=most
    )

    said = [m.utterance for m in script.moments if m.utterance]
    assert [turn.texts[1] for turn in turns] == said
    sequence = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=LONG)
    opening = chat.opening_ids(Role.ASSISTANT)
    lasts = [i for i, m in enumerate(script.moments) if m.utterance]
    for last, turn in zip(lasts, turns, strict=True):
        decision = int(sequence.decision_positions[last])
        ids = sequence.input_ids.tolist()
        start = next(
            p for p in range(decision + 1, len(ids)) if ids[p : p + len(opening)] == opening
        ) + len(opening)
        written: list[int] = []
        with torch.no_grad():
            known = model.embed(
                sequence.input_ids[None, :start], sequence.image_mask[None, :start],
                features[: last + 1].flatten(0, 1),
            )  # fmt: skip
            while len(written) < most:
                embeds = torch.cat([known, model.embed_ids(written)[None]], dim=1)
                token = int(model.lm_logits(model.hidden_states(embeds)[0, -1]).argmax())
                if token == chat.end_of_turn_id:
                    break
                written.append(token)
        assert turn.texts[0] == chat.decode(written)
    assert any(turn.texts[0] for turn in turns)
    plain = forced_turns(model, chat, script, features, theta_speak=1.1, max_seq_len=LONG)
    assert [replace(turn, texts=None) for turn in turns] == plain  # it changes nothing else
