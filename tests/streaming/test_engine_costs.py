"""What an engine saves: tokens fed once, silence in few steps, slots within a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor

from proassist_lit.data.conversation import FramesTurn, SystemTurn, UserTurn
from proassist_lit.streaming.config import ContextSource, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.slot_decoder import SlotDecoder
from tests.fakes import dialogue, random_features, tiny_model, word_chat
from tests.streaming.engines import (
    CONFIG,
    assert_equal,
    by_engine,
    by_session,
    in_silence,
    recordings,
    talk,
    thetas,
)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that an engine feeds, step by step."""
    counts: list[int] = []
    whole = SlotDecoder.__call__

    def noting(self: SlotDecoder, x: Tensor, *rest: object) -> Tensor:
        counts.append(len(x))
        return whole(self, x, *rest)

    monkeypatch.setattr(SlotDecoder, "__call__", noting)
    return counts


@pytest.mark.road
def test_rows_share_what_they_decide_alike(fed: list[int]) -> None:
    model, chat = tiny_model(7), word_chat()
    record = talk(0, 60)
    features = random_features(60, 1)
    own = thetas(in_silence(model, chat, record, features), 0.1)

    def num_fed(config: StreamConfig, thetas_speak: list[float]) -> int:
        fed.clear()
        rows = [Thresholds(theta, 1.0) for theta in thetas_speak]
        engine = Engine(model, chat, config, num_tokens_per_img=1, thresholds=rows, num_slots=9)
        list(engine.run(recordings([record], [features])))
        return sum(fed)

    config, theta = replace(CONFIG, **own), own["theta_speak"]
    near = [theta + i * 1e-9 for i in range(-4, 5)]  # on the same side of every probability but one
    reference = replace(config, context=ContextSource.REFERENCE)
    decisions = replace(reference, words=False)

    assert num_fed(config, near[:4]) == num_fed(config, near[:1])
    assert num_fed(decisions, [0.1 * i for i in range(1, 10)]) == num_fed(decisions, [1.0])
    assert num_fed(reference, near[:4]) == num_fed(reference, near[:1])
    assert num_fed(config, [0.0, 1.0]) > num_fed(config, [0.0])


def test_what_streams_begin_with_is_fed_once(fed: list[int]) -> None:
    model, chat = tiny_model(3), word_chat()
    prompt = SystemTurn(content="please help " * 10)
    records = [
        dialogue((prompt, UserTurn(content=goal), FramesTurn(start=0, end=20)), video_uid=goal)
        for goal in ("make soup", "make soup", "how many", "wait")
    ]
    features = [random_features(20, 1, seed=i) for i in range(4)]
    config = replace(CONFIG, theta_speak=1.0, theta_dst=1.0)

    answered = by_engine(model, chat, records, features, config, num_slots=4)

    for got, record, own in zip(answered, records, features, strict=True):
        assert_equal(got.frames, by_session(model, chat, record, own, config), 1e-6)
    assert sum(fed) < 20 + 4 * (20 + 8) + 30  # one prompt, four goals, 80 frames; not four prompts


def test_silence_is_watched_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = tiny_model(), word_chat()
    records = [talk(i, 200) for i in range(3)]
    features = [random_features(200, 1, seed=i) for i in range(3)]
    steps = []
    monkeypatch.setattr(Engine, "_step", lambda *a, own=Engine._step: (steps.append(1), own(*a))[1])

    by_engine(model, chat, records, features, replace(CONFIG, theta_speak=1.0, theta_dst=1.0,
                                                      max_context=1000))  # fmt: skip

    assert len(steps) < 20


def test_slots_fit_into_the_budget() -> None:
    model = tiny_model()
    one = 2 * 2 * 8 * 8  # layers, keys and values, size of a head, bytes
    gib = 5 * one * CONFIG.max_context / 2**30

    engine = Engine(model, word_chat(), replace(CONFIG, kv_gib=gib), num_tokens_per_img=1)

    assert engine._slots_for_budget() == 5
