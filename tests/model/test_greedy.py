from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import prefix_ids
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.session import Session
from tests.fakes import (
    ScriptedModel,
    Words,
    dialogue,
    random_features,
    tiny_model,
    word_chat,
)

NUM_FRAMES = 24


def build(name: str = "compact", *, words: bool = True) -> ScriptedModel:
    model, chat = tiny_model(), word_chat(name)
    model.chat = chat
    if words:
        model.words = Words(chat, ["well done", "now peel"], ["S1->start", "S1->complete"])
    return model


def frame_embeds(model: ScriptedModel, features: Tensor) -> Tensor:
    return model.project(features)[None]


def prompt(model: ScriptedModel) -> Tensor:
    ids = model.chat.turn_ids(Role.SYSTEM, "please help")
    return model.embed_tokens(torch.tensor([[*model.chat.bos_ids, *ids]]))


@pytest.mark.parametrize("name", ["compact", "chatml", "dst_ext"])
def test_a_walk_frame_by_frame_is_the_session(name: str) -> None:
    features = random_features(NUM_FRAMES, 1)
    model = build(name)
    script = read_script(dialogue())
    config = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=8, max_dst_tokens=8)
    session = Session(model, model.chat, script, config, fps=2.0, num_tokens_per_img=1)
    outputs = [session.step(frame) for frame in features]
    assert {o.speak for o in outputs} == {o.dst for o in outputs} == {True, False}
    assert any(o.speak and o.dst for o in outputs)

    model = build(name)
    cache = KVCache(model.lm.config.num_hidden_layers)
    ids = session_prefix(model)
    waiting = model.embed_tokens(torch.tensor([ids]))
    for output, frame in zip(outputs, features, strict=True):
        embeds = torch.cat([waiting, frame_embeds(model, frame)], dim=1)
        got, cache, logits = model.fast_greedy_generate_with_dst(embeds, cache, max_length=8)
        waiting = embeds[:, :0]

        assert float(logits["speaking_logits"].sigmoid()) == pytest.approx(output.speak_prob)
        assert float(logits["dst_update_logits"].sigmoid()) == pytest.approx(output.dst_prob)
        assert {k: v.shape for k, v in logits.items()} == {
            "speaking_logits": (1, 1, 1), "dst_update_logits": (1, 1, 1)
        }  # fmt: skip
        want: list[int] = []
        for role, fires, words in (
            (Role.DST, output.dst, ";".join(map(str, output.updates))),
            (Role.ASSISTANT, output.speak, output.text),
        ):
            if fires:
                span = [*model.chat.opening_ids(role), *model.chat.encode(words)]
                want += [*span, model.chat.end_of_turn_id]
        assert got.tolist() == [want or [model.chat.silent_id]]


def session_prefix(model: ScriptedModel) -> list[int]:
    script = read_script(dialogue())
    return prefix_ids(model.chat, script, script.initial_state)


def test_without_dst_only_words_are_written() -> None:
    model = build()
    for frame in random_features(NUM_FRAMES, 1):
        embeds = torch.cat([prompt(model), frame_embeds(model, frame)], dim=1)
        got, _, logits = model.fast_greedy_generate_with_dst(embeds, include_dst=False)
        openings = set(model.chat.opening_ids(Role.DST))
        assert not openings & set(got[0].tolist())
        speaks = bool(logits["speaking_logits"] >= 0)
        assert speaks == (got[0].tolist() != [model.chat.silent_id])


@pytest.mark.parametrize("make_cache", [lambda m: None, lambda m: KVCache(2)], ids=["own", "ours"])
def test_the_reference_s_polarity_and_what_stays_in_the_cache(make_cache) -> None:
    model = build()
    frame = random_features(1, 1)[0]
    embeds = torch.cat([prompt(model), frame_embeds(model, frame)], dim=1)
    length = embeds.shape[1]
    with torch.no_grad():
        p = float(torch.sigmoid(-model.speak_head(model.hidden_states(embeds)[:, -1])))

    silent, cache = model.fast_greedy_generate(
        embeds, make_cache(model), not_talk_threshold=p - 1e-6
    )
    assert silent.tolist() == [[model.chat.silent_id]]
    assert cache.get_seq_length() == length

    spoken, cache = model.fast_greedy_generate(
        embeds, make_cache(model), not_talk_threshold=p + 1e-6
    )
    chat = model.chat
    words = [*chat.opening_ids(Role.ASSISTANT), *chat.encode("well done"), chat.end_of_turn_id]
    assert spoken.tolist() == [words]
    assert cache.get_seq_length() == length + len(words) + len(chat.after_turn_ids)

    _, cache = model.fast_greedy_generate(
        embeds, make_cache(model), not_talk_threshold=1.0, drop_generated_kv_cache=True
    )
    assert cache.get_seq_length() == length


def test_a_cut_utterance_is_closed_in_the_cache() -> None:
    model = build()
    embeds = prompt(model)

    got, cache = model.fast_greedy_generate(embeds, None, max_length=1, not_talk_threshold=1.0)

    chat = model.chat
    opening = chat.opening_ids(Role.ASSISTANT)
    assert got.tolist() == [[*opening, *chat.encode("well")]]
    assert cache.get_seq_length() == embeds.shape[1] + len(opening) + 2


def test_verbose_logs_the_probability(caplog: pytest.LogCaptureFixture) -> None:
    model = build()
    with caplog.at_level(logging.INFO):
        model.fast_greedy_generate(prompt(model), None, not_talk_threshold=1.0, verbose=True)
    assert "well done" in caplog.text


@pytest.mark.parametrize("side", ["left", "right"])
def test_turn_logits_are_the_same_with_padding_on_either_side(side: str) -> None:
    model = build()
    hidden = torch.randn(2, 7, model.hidden_size, dtype=torch.float64)
    lengths = (7, 4)
    padded, mask = torch.full_like(hidden, 1e6), torch.zeros(2, 7)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(7 - length, 7)
        padded[row, place], mask[row, place] = hidden[row, :length], 1

    got = model.turn_logits(padded, mask)

    for row, length in enumerate(lengths):
        alone = model.turn_logits(hidden[row : row + 1, :length])
        for name, logits in alone.items():
            assert got[name].shape == (2, 1, 1)
            torch.testing.assert_close(got[name][row : row + 1], logits)


def test_what_cannot_be_walked_is_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"is \(2, 3, 16\), expected \(1, T, D\)"):
        model.fast_greedy_generate(torch.zeros(2, 3, 16, dtype=torch.float64), None)
    model.chat = None
    with pytest.raises(ConfigError, match="built without its chat"):
        model.fast_greedy_generate(torch.zeros(1, 3, 16, dtype=torch.float64), None)
