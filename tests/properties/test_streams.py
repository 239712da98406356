"""An engine answers as sessions do, whatever the streams, settings, blocks and thresholds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from proassist_lit.data.conversation import Conversation
from proassist_lit.streaming.config import ContextSource, Kernels, Strategy, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from tests.fakes import random_features, tiny_model, word_chat
from tests.properties.strategies import examples
from tests.streaming.engines import CONFIG, assert_equal, by_session, recordings, talk

MARGIN = 1e-4
"""In float32 a decision nearer to its threshold may fall either way."""


@st.composite
def settings(draw: st.DrawFn) -> StreamConfig:
    """Any strategy and policy, some with the reference as context; reserve for K up to 10."""
    strategy = draw(st.sampled_from(list(Strategy)))
    context = draw(st.sampled_from(list(ContextSource)))
    return replace(
        CONFIG,
        strategy=strategy,
        max_context=2000 if strategy is Strategy.NONE else draw(st.integers(190, 260)),
        reserve=80,
        context=context,
        words=context is ContextSource.OWN or draw(st.booleans()),
        min_gap_frames=draw(st.sampled_from([0, 0, 3])),
        stride=draw(st.sampled_from([1, 1, 4])),
        reread_margin=draw(st.sampled_from([None, None, 0.05])),
    )


@st.composite
def rows(draw: st.DrawFn, probs: list[tuple[float, float]]) -> list[Thresholds]:
    """Some rows of thresholds that 2 to 20 % of ``probs`` reach."""
    some = st.sampled_from([0.02, 0.06, 0.1, 0.2])
    shares = draw(st.lists(some, min_size=2, max_size=3, unique=True))
    speak, dst = torch.tensor(probs).T
    rise = draw(st.sampled_from([None, None, 0.05]))
    return [
        Thresholds(float(speak.quantile(1 - s)) + 1e-9, float(dst.quantile(1 - s)) + 1e-9, rise)
        for s in shares
    ]


@examples(12)
@given(data=st.data(), config=settings(), k=st.sampled_from([1, 5, 10]), seed=st.integers(0, 99))
def test_an_engine_answers_as_sessions_do(
    data: st.DataObject, config: StreamConfig, k: int, seed: int
) -> None:
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    num_streams = data.draw(st.integers(1, 4))
    model, chat = tiny_model(seed, dtype=dtype), word_chat()
    records: list[Conversation] = [talk(seed + i, 12 + 9 * (i % 3)) for i in range(num_streams)]
    features = [random_features(r.num_frames, k, seed=i).to(dtype) for i, r in enumerate(records)]
    silent = replace(config, theta_speak=1.0, theta_dst=1.0)
    frames = by_session(model, chat, records[-1], features[-1], silent)
    thresholds = data.draw(rows([(f.speak_prob, f.dst_prob or 0.0) for f in frames]))
    kernels = data.draw(st.sampled_from([Kernels.TORCH, Kernels.AUTO]))  # compiled in float32
    engine = Engine(
        model, chat, replace(silent, kernels=kernels), num_tokens_per_img=k, thresholds=thresholds,
        num_slots=data.draw(st.integers(1, 16)), max_block=data.draw(st.sampled_from([1, 3, 64])),
    )  # fmt: skip

    answered = list(engine.run(recordings(records, features)))

    assert len(answered) == num_streams * len(thresholds)
    for got in answered:
        row = thresholds[got.row]
        alone = replace(config, theta_speak=row.speak, theta_dst=row.dst, rise=row.rise)
        alone = replace(alone, kernels=Kernels.TORCH)
        want = by_session(model, chat, records[got.index], features[got.index], alone)
        if dtype == torch.float32:
            assume(_margin(want, row) >= MARGIN)
        assert got.error is None
        assert_equal(got.frames, want, 1e-6 if dtype == torch.float64 else 1e-4)


def _margin(frames: list, row: Thresholds) -> float:
    """How near the nearest decision is to its threshold."""
    speak = [row.speak if row.rise is None else 0.5]
    near = [abs(f.speak_prob - theta) for f in frames for theta in speak]
    near += [abs((f.dst_prob or 0.0) - row.dst) for f in frames]
    if row.rise is not None:
        near += [abs(b.speak_prob - a.speak_prob - row.rise) for a, b in pairwise(frames)]
    return min(near)
