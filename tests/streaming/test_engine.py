"""An engine answers as sessions do, and as one forward over the conversation that was had."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, FramesTurn, SystemTurn
from proassist_lit.model.config import Decision
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import ContextSource, SpeakRule, Strategy
from proassist_lit.streaming.slot_cache import SlotCache
from proassist_lit.streaming.teacher import teacher_force
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.streaming.engines import (
    CONFIG,
    assert_equal,
    by_engine,
    by_session,
    compare,
    in_silence,
    talk,
    thetas,
)


@pytest.mark.parametrize("k", [1, pytest.param(5, marks=pytest.mark.road), 10])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_engine_equals_session(k: int, strategy: Strategy) -> None:
    max_context = 1000 if strategy is Strategy.NONE else 110 + 12 * k
    answered = compare(3, k=k, strategy=strategy, max_context=max_context, reserve=60 + k)

    events = {f.event for a in answered for f in a.frames} - {None}
    assert events == (set() if strategy is Strategy.NONE else {strategy.value})


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_engine_equals_one_forward(k: int, seed: int) -> None:
    """All that an engine read, read again in one forward over the conversation that was had."""
    model, chat = tiny_model(seed), word_chat()
    records = [talk(seed + i, 25 + 7 * i) for i in range(4)]
    features = [random_features(r.num_frames, k, seed=i) for i, r in enumerate(records)]
    config = replace(CONFIG, strategy=Strategy.NONE, max_context=2000)
    silent = in_silence(model, chat, records[0], features[0])
    config = replace(config, **thetas(silent, 0.1), max_dst_tokens=1)
    # Spans are told again by their text: no special token may be among a random model's words.
    with torch.no_grad():
        plain = word_chat().tokenizer.words.index("\n\n") + 1
        weight = model.lm.get_output_embeddings().weight
        head = torch.nn.Linear(16, len(weight), dtype=torch.float64)
        head.weight.copy_(weight)
        head.bias.zero_()[:plain] = -1e9
        model.lm.set_output_embeddings(head)
    config = replace(config, theta_dst=1.0, max_new_tokens=4)
    answered = by_engine(model, chat, records, features, config, num_slots=3, max_block=16)

    spoken = 0
    for got, record, own in zip(answered, records, features, strict=True):
        script = read_script(record)
        had = replace(
            script,
            moments=[
                replace(
                    moment,
                    before=heard(script, i),
                    spans=(Text(role=Role.ASSISTANT, content=f.text),) if f.speak else (),
                )
                for i, (moment, f) in enumerate(zip(script.moments, got.frames, strict=True))
            ],
        )
        sequence = build_sequence(had, chat, num_tokens_per_img=k, max_seq_len=10**6)
        forced = teacher_force(model, sequence, own)
        probs = torch.tensor([f.speak_prob for f in got.frames])
        torch.testing.assert_close(probs, forced.speak_probs, atol=1e-6, rtol=0)
        spoken += sum(f.speak for f in got.frames)
    assert spoken > 5


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.road if seed > 2 else ()) for seed in range(6)]
)
def test_engine_equals_session_whatever_the_blocks_and_slots(seed: int) -> None:
    rng = random.Random(seed)
    compare(
        seed, num_streams=rng.randint(1, 7), num_slots=rng.randint(1, 16),
        max_block=rng.choice([1, 2, 7, 64]), share=rng.choice([0.02, 0.1, 0.2]),
    )  # fmt: skip


@pytest.mark.road
@pytest.mark.parametrize(
    "changes",
    [
        {"rise": 0.05},
        {"min_gap_frames": 3},
        {"stride": 4},
        {"rule": SpeakRule.RUNNING_SUM, "theta_speak": 4.0},
        {"rule": SpeakRule.RUNNING_SUM, "theta_speak": 3.0, "min_gap_frames": 9, "stride": 2},
        {"rule": SpeakRule.RUNNING_SUM, "theta_speak": 3.0, "context": ContextSource.REFERENCE},
        {"rule": SpeakRule.Z_SCORE, "theta_speak": 1.5},
        {"rule": SpeakRule.Z_SCORE, "theta_speak": 1.5, "context": ContextSource.REFERENCE},
        {"context": ContextSource.REFERENCE},
        {"context": ContextSource.REFERENCE, "words": False},
        {"context": ContextSource.REFERENCE, "strategy": Strategy.DST_REFRESH, "max_context": 120},
        {"context": ContextSource.REFERENCE, "strategy": Strategy.DROP_MIDDLE, "max_context": 120},
        {"strategy": Strategy.DROP_MIDDLE, "max_context": 120, "window_tokens": 2},
        {
            "context": ContextSource.REFERENCE,
            "strategy": Strategy.DROP_MIDDLE,
            "max_context": 120,
            "window_tokens": 2,
        },
    ],
    ids=lambda c: "-".join(str(v) for v in c.values()),
)
def test_engine_equals_session_under_every_policy(changes: dict) -> None:
    compare(2, **changes)


@pytest.mark.parametrize(
    "decision", [Decision.SILENT_TOKEN, Decision.INFORMATIVE_RELEVANCE], ids=lambda d: d.value
)
@pytest.mark.parametrize("rule", SpeakRule)
def test_engine_equals_session_whatever_decides(decision: Decision, rule: SpeakRule) -> None:
    """Between frames stands a token that is silence, as in VideoLLM-online, or nothing."""
    theta = {SpeakRule.RUNNING_SUM: 4.0, SpeakRule.Z_SCORE: 1.5}.get(rule)
    changes = {} if theta is None else {"rule": rule, "theta_speak": theta}
    compare(4, separator=True, decision=decision, **changes)


@pytest.mark.road
@pytest.mark.parametrize("name", ["chatml", "dst_ext", "llama3"])
@pytest.mark.parametrize("separator", [False, True])
def test_engine_equals_session_in_every_format(name: str, separator: bool) -> None:
    compare(4, chat=name, separator=separator, reserve=80)


def test_a_reply_of_the_reference_ends_a_sum_where_it_makes_the_context() -> None:
    model, chat = tiny_model(2), word_chat()
    said = [FramesTurn(start=0, end=9), AssistantTurn(content="good"), FramesTurn(start=9, end=20)]
    record, features = dialogue((SystemTurn(content="please help"), *said)), random_features(20)
    config = replace(CONFIG, theta_dst=1.0, context=ContextSource.REFERENCE)
    config = replace(config, rule=SpeakRule.RUNNING_SUM, theta_speak=1e6)
    probs = [f.speak_prob for f in by_session(model, chat, record, features, config)]
    most = max(sum(probs[:9]), sum(probs[9:]))

    for theta, wanted in ((most - 1e-4, 1), (most + 1e-4, 0)):
        own = replace(config, theta_speak=theta)
        frames = by_session(model, chat, record, features, own)
        assert sum(f.speak for f in frames) == wanted
        (answered,) = by_engine(model, chat, [record], [features], own)
        assert_equal(answered.frames, frames, 1e-6)


def test_engine_equals_session_in_float32() -> None:
    compare(5, dtype=torch.float32)


@pytest.mark.parametrize("rise", [None, 0.2])
def test_decisions_near_their_threshold_are_read_again_alone(
    rise: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[KVCache] = []

    def noting(self: SlotCache, slot: int, own=SlotCache.view) -> KVCache:
        views.append(own(self, slot))
        return views[-1]

    monkeypatch.setattr(SlotCache, "view", noting)

    answered = compare(5, reread_margin=0.05, rise=rise, num_streams=3)

    frames = [f for a in answered for f in a.frames]
    if rise is None:
        assert 0 < len(views) < len(frames) / 2
    else:  # all: a decision also hangs on the frame before
        assert len(views) >= len(frames)


@pytest.mark.road
def test_bf16_decisions_are_those_of_a_session() -> None:
    model, chat = tiny_model(4, dtype=torch.bfloat16), word_chat()
    records = [talk(4 + i, 100) for i in range(10)]
    features = [random_features(100, 1, seed=i).bfloat16() for i in range(10)]
    config = replace(CONFIG, context=ContextSource.REFERENCE, words=False, max_context=2000)
    config = replace(config, **thetas(in_silence(model, chat, records[0], features[0]), 0.5))
    pairs = [
        ((got.speak, got.dst), (want.speak, want.dst))
        for answered, record, own in zip(
            by_engine(model, chat, records, features, config, num_slots=4), records, features,
            strict=True,
        )
        for got, want in zip(
            answered.frames, by_session(model, chat, record, own, config), strict=True
        )
    ]  # fmt: skip
    assert len(pairs) == 1000
    assert sum(got == want for got, want in pairs) >= 999


@pytest.mark.road
@pytest.mark.parametrize(
    ("rule", "theta"), [(SpeakRule.RUNNING_SUM, 4.0), (SpeakRule.Z_SCORE, 1.5)]
)
def test_bf16_decisions_of_a_rule_are_read_alone(rule: SpeakRule, theta: float) -> None:
    """What rounding does to one frame would be in all decisions after it."""
    model, chat = tiny_model(4, dtype=torch.bfloat16), word_chat()
    records = [talk(4 + i, 60) for i in range(4)]
    features = [random_features(60, 1, seed=i).bfloat16() for i in range(4)]
    config = replace(CONFIG, context=ContextSource.REFERENCE, words=False, max_context=2000)
    config = replace(config, rule=rule, theta_speak=theta)

    answered = by_engine(model, chat, records, features, config, num_slots=4)

    for got, record, own in zip(answered, records, features, strict=True):
        want = by_session(model, chat, record, own, config)
        assert [f.speak_prob for f in got.frames] == [f.speak_prob for f in want]
        assert [f.speak for f in got.frames] == [f.speak for f in want]
