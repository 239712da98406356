"""Streams with users, answered by an engine and by sessions, to be compared."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.model.config import Decision
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.recording import Answered, Recording
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput, Transition, Update
from tests.fakes import ScriptedModel, dialogue, random_features, tiny_model, word_chat

CONFIG = StreamConfig(
    theta_speak=0.5, theta_dst=0.5, max_new_tokens=5, max_dst_tokens=4, max_context=400,
    reserve=60, window_tokens=20, max_summary_tokens=6,
)  # fmt: skip


def talk(seed: int, num_frames: int) -> Conversation:
    """A user who says something now and then, and a reference of its own."""
    rng = random.Random(seed)
    turns: list[Turn] = [SystemTurn(content="please help")]
    frame = 0
    while frame < num_frames:
        length = min(rng.randint(1, 9), num_frames - frame)
        turns.append(FramesTurn(start=frame, end=frame + length))
        frame += length
        match rng.randrange(5):
            case 0:
                turns.append(UserTurn(content=rng.choice(["wait", "how many", "make soup"])))
            case 1:
                turns.append(AssistantTurn(content=rng.choice(["good", "well done"])))
            case 2:
                turns.append(DstTurn(updates=(Update("S1", Transition.START),)))
                turns.append(AssistantTurn(content="now peel"))
    return dialogue(tuple(turns), video_uid=f"video{seed}")


def by_session(
    model: ScriptedModel, chat: Chat, record: Conversation, features: Tensor, config: StreamConfig
) -> list[FrameOutput]:
    script = read_script(record)
    session = Session(model, chat, script, config, fps=2.0, num_tokens_per_img=features.shape[1])
    return [
        session.step(
            features[i], heard(script, i), said=Said(moment.before, moment.spans)
        )
        for i, moment in enumerate(script.moments)
    ]  # fmt: skip


def recordings(records: list[Conversation], features: list[Tensor]) -> list[Recording]:
    return [
        Recording(name=r.id, script=read_script(r), features=lambda f=f: f, fps=2.0)
        for r, f in zip(records, features, strict=True)
    ]


def by_engine(
    model: ScriptedModel, chat: Chat, records: list[Conversation], features: list[Tensor],
    config: StreamConfig, **options: int,
) -> list[Answered]:  # fmt: skip
    engine = Engine(model, chat, config, num_tokens_per_img=features[0].shape[1], **options)
    answered = list(engine.run(recordings(records, features)))
    return sorted(answered, key=lambda a: a.index)


def thetas(frames: list[FrameOutput], share: float) -> dict[str, float]:
    """Thresholds at which about ``share`` of the frames of a silent session fire."""
    speak = torch.tensor([f.speak_prob for f in frames]).quantile(1 - share)
    dst = torch.tensor([f.dst_prob for f in frames]).quantile(1 - share)
    return {"theta_speak": float(speak), "theta_dst": float(dst)}


def in_silence(
    model: ScriptedModel, chat: Chat, record: Conversation, features: Tensor
) -> list[FrameOutput]:
    config = replace(CONFIG, theta_speak=1.0, theta_dst=1.0, max_context=4000)
    return by_session(model, chat, record, features, config)


@functools.cache  # nothing of it is changed
def scene(
    seed: int, k: int, num_streams: int, chat_name: str, separator: bool, decision: Decision,
    dtype: torch.dtype,
) -> tuple[ScriptedModel, Chat, list[Conversation], list[Tensor], list[FrameOutput]]:  # fmt: skip
    """A model, some streams for it, and what it makes of the last one in silence."""
    chat = word_chat(chat_name, separator=separator)
    model = tiny_model(seed, dtype=dtype, decision=decision, chat=chat)
    records = [talk(seed + i, 25 + 7 * i) for i in range(num_streams)]
    features = [random_features(r.num_frames, k, seed=i).to(dtype) for i, r in enumerate(records)]
    return model, chat, records, features, in_silence(model, chat, records[-1], features[-1])


def assert_equal(ours: tuple[FrameOutput, ...], want: list[FrameOutput], atol: float) -> None:
    assert len(ours) == len(want)
    for got, wanted in zip(ours, want, strict=True):
        assert got.speak_prob == pytest.approx(wanted.speak_prob, abs=atol)
        assert got.dst_prob == pytest.approx(wanted.dst_prob, abs=atol)
        assert replace(got, speak_prob=0, dst_prob=0) == replace(wanted, speak_prob=0, dst_prob=0)


def compare(
    seed: int, *, k: int = 1, num_streams: int = 4, share: float = 0.1, chat: str = "compact",
    separator: bool = False, decision: Decision = Decision.HEAD,
    dtype: torch.dtype = torch.float64, num_slots: int = 3, max_block: int = 16, **changes: object,
) -> list[Answered]:  # fmt: skip
    made = scene(seed, k, num_streams, chat, separator, decision, dtype)
    model, chat, records, features, silent = made
    config = replace(CONFIG, **thetas(silent, share))
    config = replace(config, **changes)
    answered = by_engine(
        model, chat, records, features, config, num_slots=num_slots, max_block=max_block
    )
    atol = 1e-6 if dtype == torch.float64 else 1e-4
    for got, record, own in zip(answered, records, features, strict=True):
        assert got.error is None
        assert_equal(got.frames, by_session(model, chat, record, own, config), atol)
    fired = [f.speak or f.dst for a in answered for f in a.frames]
    assert 0 < sum(fired) < len(fired)
    return answered
