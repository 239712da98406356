from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import AssistantTurn, DstTurn, FramesTurn, UserTurn
from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import build_sequence, prefix_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import ContextSource, Strategy, StreamConfig
from proassist_lit.streaming.context import ContextManager
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.session import Session
from proassist_lit.streaming.teacher import teacher_force
from proassist_lit.types import FrameOutput
from tests.fakes import (
    DIALOGUE,
    ScriptedModel,
    Words,
    dialogue,
    random_features,
    tiny_model,
    word_chat,
)

CONFIG = StreamConfig(
    theta_speak=0.6, theta_dst=0.6, max_new_tokens=6, max_dst_tokens=6, max_context=90,
    reserve=50, window_tokens=12, max_summary_tokens=6,
)  # fmt: skip
CUTTING = [s for s in Strategy if s is not Strategy.NONE]


def open_session(
    model: ScriptedModel, chat: Chat, strategy: Strategy, **changes: object
) -> Session:
    config = replace(CONFIG, strategy=strategy, **changes)
    return Session(model, chat, read_script(dialogue()), config, fps=2.0, num_tokens_per_img=1,
                   decoder=model.noting_decoder())  # fmt: skip


def play(session: Session, features: Tensor) -> list[FrameOutput]:
    return [session.step(frame) for frame in features]


@pytest.mark.parametrize("strategy", CUTTING)
@pytest.mark.parametrize("separator", [False, True])
def test_context_stays_bounded_and_every_frame_is_answered(
    strategy: Strategy, separator: bool
) -> None:
    model, chat = tiny_model(), word_chat(separator=separator)
    outputs = play(open_session(model, chat, strategy), random_features(80))

    assert [o.frame_idx for o in outputs] == list(range(80))
    assert max(o.context_len for o in outputs) <= CONFIG.max_context
    events = [o for o in outputs if o.event]
    assert len(events) > 2
    assert {o.event for o in events} == {strategy.value}
    assert all(o.context_len >= CONFIG.max_context - CONFIG.reserve for o in events)
    assert {o.speak for o in outputs} == {True, False}


def cache_of(model: ScriptedModel, ids: list[int]) -> KVCache:
    cache = KVCache(model.lm.config.num_hidden_layers)
    with torch.no_grad():
        model.hidden_states(model.embed_tokens(torch.tensor([ids])), cache=cache)
    return cache


def test_summary_is_asked_for_and_opens_the_next_context() -> None:
    model, chat = tiny_model(), word_chat("chatml")
    model.words = Words(chat, ["so far good"], ["S1->start"])
    session = open_session(model, chat, Strategy.SUMMARIZE, theta_speak=1.0, theta_dst=1.0,
                           max_context=120, reserve=80)  # fmt: skip
    script = read_script(dialogue())
    for frame in random_features(60):
        model.fed.clear()
        output = session.step(frame)
        if output.event:
            break

    assert output.text == ""  # nobody hears a summary
    fed = torch.cat(model.fed, dim=1)
    query = [*chat.turn_ids(Role.SYSTEM, SUMMARY_QUERY), *chat.opening_ids(Role.ASSISTANT)]
    words = [*query, *chat.encode("so far good")]
    torch.testing.assert_close(fed[:, -len(words) :], model.embed_tokens(torch.tensor([words])))
    session.step(random_features(1)[0])
    prefix = prefix_ids(chat, script, script.initial_state, "so far good")
    held, want = session._cache.layers[1], cache_of(model, prefix).layers[1]
    torch.testing.assert_close(held.keys[:, :, : len(prefix)], want.keys[:, :, : len(prefix)])


class Stammering(Chat):
    """Reads every word back as three tokens, as tokenizers do with broken characters."""

    def encode(self, text: str) -> list[int]:
        return [token for token in super().encode(text) for _ in range(3)]


def test_a_summary_that_is_longer_when_it_is_read_is_cut() -> None:
    chat = word_chat()
    long = Stammering(chat.format, chat.tokenizer)
    context = ContextManager(long, read_script(dialogue()), replace(
        CONFIG, strategy=Strategy.SUMMARIZE, max_context=150, reserve=60
    ), num_tokens_per_img=1, name="kitchen")  # fmt: skip
    assert context._fitted("so far") == "so far"  # six tokens
    kept = context._fitted("so far good so far")
    assert "so far good so far".startswith(kept)
    assert kept
    assert len(long.encode(kept)) <= CONFIG.max_summary_tokens
    assert context._fitted("") == ""


@pytest.mark.parametrize("strategy", [Strategy.DROP_ALL, Strategy.DST_REFRESH, Strategy.SUMMARIZE])
def test_knowledge_is_told_again(strategy: Strategy) -> None:
    model, chat = tiny_model(), word_chat()
    session = open_session(model, chat, strategy)
    knowledge = Text(role=Role.SYSTEM, content="Task knowledge: use the pan")
    features = random_features(60)
    outputs = [session.step(features[0], [knowledge])]
    after: list[Tensor] = []
    for frame in features[1:]:
        outputs.append(session.step(frame))
        if outputs[-2].event:
            values = session._cache.layers[0].values  # of the first layer: the tokens alone
            after.append(values[0, 0, : len(session._cache)].clone())

    ids = chat.encode(knowledge.content)
    want = cache_of(model, ids).layers[0].values[0, 0, : len(ids)]
    assert after
    for held in after:
        windows = held.unfold(0, len(ids), 1).transpose(1, 2)
        assert (windows - want).abs().sum((1, 2)).min() < 1e-12


def test_drop_middle_keeps_prefix_and_whole_frames_at_new_positions() -> None:
    model, chat = tiny_model(), word_chat()
    session = open_session(model, chat, Strategy.DROP_MIDDLE)
    features = random_features(60)
    script = read_script(dialogue())
    prefix = len(prefix_ids(chat, script, script.initial_state))
    kept = []
    for frame in features:
        before, fed_before = len(session._cache), len(model.fed)
        output = session.step(frame)
        if not output.event:
            continue
        fed = torch.cat(model.fed[fed_before:], dim=1).shape[1]
        length = len(session._cache)
        assert prefix <= length <= prefix + CONFIG.window_tokens
        # Layer 0 sees tokens alone: its keys are those of the kept tokens at their new places.
        tokens = torch.cat(model.fed, dim=1)[0]
        tail = tokens[len(tokens) - (length - prefix) :]
        fresh = KVCache(model.lm.config.num_hidden_layers)
        with torch.no_grad():
            model.hidden_states(torch.cat([tokens[:prefix], tail])[None], cache=fresh)
        ours, want = session._cache.layers[0], fresh.layers[0]
        torch.testing.assert_close(
            ours.keys[:, :, :length], want.keys[:, :, :length], atol=1e-9, rtol=0
        )
        torch.testing.assert_close(ours.values[:, :, :length], want.values[:, :, :length])
        kept.append((before + fed, length))
    assert len(kept) > 2


@pytest.mark.parametrize("rope", [
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
     "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
], ids=lambda rope: rope["rope_type"])  # fmt: skip
def test_moved_keys_equal_keys_of_the_new_positions(rope: dict) -> None:
    model = tiny_model(rope=rope)
    tokens = torch.randn(1, 40, 16, dtype=torch.float64)
    cache, fresh = KVCache(2), KVCache(2)
    with torch.no_grad():
        model.hidden_states(tokens, cache=cache)
        model.hidden_states(torch.cat([tokens[:, :5], tokens[:, 20:31]], 1), cache=fresh)

    cache.keep([(0, 5), (20, 31)], KeyRotation(model))

    assert len(cache) == len(fresh) == 16
    torch.testing.assert_close(
        cache.layers[0].keys[:, :, :16], fresh.layers[0].keys[:, :, :16], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keys_of_16_bits_are_rounded_once_when_they_are_moved(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    tokens = torch.randn(1, 400, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    cache, fresh, kept = KVCache(2), KVCache(2), torch.arange(400)
    rotation = KeyRotation(model)
    with torch.no_grad():
        model.hidden_states(tokens, cache=cache)
        for dropped in (50, 31, 17, 40, 3):  # what stays is moved again and again
            cache.keep([(0, 5), (5 + dropped, len(cache))], rotation)
            kept = torch.cat([kept[:5], kept[5 + dropped :]])
        model.hidden_states(tokens[:, kept], cache=fresh)

    moved, want = (found.layers[0].keys[:, :, 5 : len(kept)].double() for found in (cache, fresh))
    assert cache.layers[0].keys.dtype is dtype
    length = want.unflatten(-1, (2, -1)).norm(dim=-2).repeat(1, 1, 1, 2)  # of what is turned
    last_bit = length.log2().floor().exp2() * torch.finfo(dtype).eps
    assert ((moved - want).abs() / last_bit).mean() < 0.6


def test_keep_refuses_what_it_cannot_do() -> None:
    cache = KVCache(2)
    with torch.no_grad():
        tiny_model().hidden_states(torch.randn(1, 8, 16, dtype=torch.float64), cache=cache)
    with pytest.raises(ValueError, match="must rise within 8 tokens"):
        cache.keep([(0, 9)])
    with pytest.raises(ValueError, match=r"tokens 4\.\.7 change their place"):
        cache.keep([(0, 2), (4, 8)])
    assert len(cache) == 8


@pytest.mark.parametrize("words", [True, False])
def test_with_the_reference_as_context_decisions_are_the_teacher_forced_ones(words: bool) -> None:
    model, chat = tiny_model(), word_chat("chatml", separator=True)
    late = UserTurn(content="wait"), AssistantTurn(content="it is good")
    end = FramesTurn(start=20, end=23), DstTurn(updates=DIALOGUE[5].updates)
    talk = dialogue((*DIALOGUE, *late, *end))
    features = random_features(13)
    sequence = build_sequence(read_script(talk), chat, num_tokens_per_img=1, max_seq_len=999)
    forced = teacher_force(model, sequence, features)
    config = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=6, max_dst_tokens=6,
                          context=ContextSource.REFERENCE, words=words)  # fmt: skip

    transcript = stream_conversation(model, chat, talk, features, config)

    speak = torch.tensor([f.speak_prob for f in transcript.frames])
    dst = torch.tensor([f.dst_prob for f in transcript.frames])
    torch.testing.assert_close(speak, forced.speak_probs, atol=1e-6, rtol=0)
    torch.testing.assert_close(dst, forced.dst_probs, atol=1e-6, rtol=0)
    assert {f.speak for f in transcript.frames} == {True, False}
    assert any(f.text for f in transcript.frames) == words
    assert transcript.frames[-2].context_len < len(sequence.input_ids)


def test_dst_refresh_tells_the_reference_s_state_where_it_makes_the_context() -> None:
    model, chat = tiny_model(), word_chat()
    model.words = Words(chat, ["wait"], ["S2->complete"])
    turns = [FramesTurn(start=0, end=5), DstTurn(updates=DIALOGUE[5].updates)]
    talk = dialogue((*turns, FramesTurn(start=5, end=60)))
    config = replace(CONFIG, strategy=Strategy.DST_REFRESH, context=ContextSource.REFERENCE)

    transcript = stream_conversation(model, chat, talk, random_features(60), config)

    reference = transcript.references[-1].state
    event = next(i for i, f in enumerate(transcript.frames) if f.event)
    prefix = prefix_ids(chat, read_script(talk), reference)
    assert transcript.frames[event + 1].context_len == len(prefix) + 1
    assert transcript.frames[event].state != reference


def test_snapshot_restore_and_reset() -> None:
    model, chat, features = tiny_model(), word_chat(), random_features(40)
    session = open_session(model, chat, Strategy.DROP_MIDDLE)
    whole = play(session, features)
    session.reset()

    first = play(session, features[:17])
    here = session.snapshot()
    again = [play(session, features[17:])]
    for _ in range(2):
        session.restore(here)
        again.append(play(session, features[17:]))

    assert all([*first, *rest] == whole for rest in again)


def test_a_live_session_takes_pictures() -> None:
    model, chat, features = tiny_model(), word_chat(), random_features(3)
    session = Session(
        model, chat, read_script(dialogue()), replace(CONFIG, strategy=Strategy.NONE), fps=2.0,
        num_tokens_per_img=1, encode=lambda picture: features[int(picture[0, 0, 0])],
    )  # fmt: skip
    pictures = [torch.full((4, 4, 3), i, dtype=torch.uint8).numpy() for i in range(3)]

    assert play(session, pictures) == play(open_session(model, chat, Strategy.NONE), features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": Strategy.DROP_MIDDLE, "window_tokens": 60}, "window_tokens 60 more, which"),
        ({"strategy": Strategy.SUMMARIZE, "max_summary_tokens": 40}, "reserve is 50, but one"),
    ],
)
def test_strategies_that_leave_no_room_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_session(tiny_model(), word_chat(), **changes)
