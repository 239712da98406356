"""What a session feeds is what the builder writes, and its decisions are those of one forward."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.rules import rules_for
from proassist_lit.sequence.script import Moment, Script, Text, read_script
from proassist_lit.streaming.config import ContextSource, Strategy
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.types import FrameOutput, StepState, Transition, Update, format_updates
from tests.fakes import Words, dialogue, random_features, tiny_model, word_chat
from tests.streaming.sessions import (
    CONFIG,
    DST,
    NUM_FRAMES,
    SMALL,
    UTTERANCES,
    open_session,
    play,
    user_talk,
)

CASES = [
    pytest.param(name, k, separator, id=f"{name}-K{k}-{'sep' if separator else 'plain'}")
    for name in ("compact", "chatml")
    for k in (1, 5)
    for separator in (False, True)
]


def spans(output: FrameOutput) -> tuple[Text, ...]:
    words = format_updates(output.updates)
    dst = Text(role=Role.DST, content=words, updates=output.updates)
    said = Text(role=Role.ASSISTANT, content=output.text)
    return (dst,) * output.dst + (said,) * output.speak


def resulting_sequence(chat: Chat, outputs: list[FrameOutput], k: int) -> TokenSequence:
    """The tokens the builder makes for the conversation that the session had."""
    script = read_script(dialogue(user_talk(len(outputs))))
    had = Script(
        prompt=script.prompt,
        steps=script.steps,
        initial_state=script.initial_state,
        moments=[
            Moment(frame_idx=o.frame_idx, before=m.before, spans=spans(o))
            for m, o in zip(script.moments, outputs, strict=True)
        ],
    )
    return build_sequence(had, chat, num_tokens_per_img=k, max_seq_len=10**6)


@pytest.mark.parametrize(("name", "k", "separator"), CASES)
def test_session_feeds_the_builders_tokens_and_equals_one_forward(
    name: str, k: int, separator: bool
) -> None:
    model, chat = tiny_model(), word_chat(name, separator=separator)
    features = random_features(NUM_FRAMES, k)
    model.words = Words(chat, UTTERANCES, DST)
    session = open_session(model, chat, k=k)
    outputs = play(session, features)
    fed, speak_logits, dst_logits = (
        torch.cat(model.fed, dim=1),
        model.speak_logits[:],
        model.dst_logits[:],
    )

    # The stream must hold every case: nothing, words, updates, both; silence side by side.
    kinds = [(o.speak, o.dst) for o in outputs]
    assert set(kinds) == {(False, False), (True, False), (False, True), (True, True)}
    assert ((False, False), (False, False)) in list(itertools.pairwise(kinds))

    sequence = resulting_sequence(chat, outputs, k)
    with torch.no_grad():
        embeds = model.embed(
            sequence.input_ids[None], sequence.image_mask[None], features.flatten(0, 1)
        )
        hidden = model.hidden_states(embeds)[0, sequence.decision_positions]
    length = fed.shape[1]
    torch.testing.assert_close(fed, embeds[:, :length], atol=1e-12, rtol=0)
    # What is not fed yet is the closing of the last span; it waits for the next frame.
    assert session.context_len == outputs[-1].context_len == len(sequence.input_ids)
    assert length >= len(sequence.input_ids) - 2
    for got, head, probs in (
        (speak_logits, model.speak_head, [o.speak_prob for o in outputs]),
        (dst_logits, model.dst_head, [o.dst_prob for o in outputs]),
    ):
        with torch.no_grad():
            want = head(hidden)
        torch.testing.assert_close(torch.stack(got), want, atol=1e-9, rtol=0)
        torch.testing.assert_close(torch.tensor(probs), want.sigmoid().float())
    assert [o.context_len for o in outputs] == context_lens(sequence, k, separator)


def context_lens(sequence: TokenSequence, k: int, separator: bool) -> list[int]:
    """Tokens up to each frame's last one; the next frame's part begins after it."""
    ids, positions = sequence.input_ids, sequence.decision_positions.tolist()
    chat = word_chat("compact", separator=True)
    openings = {"<|user|>", "<|system|>", "user", "system"}
    lengths = []
    for here, following in zip(positions, [*positions[1:], None], strict=True):
        end = len(ids) if following is None else following - k + 1
        words = [chat.tokenizer.words[i] for i in ids[here + 1 : end]]
        cut = next((i for i, word in enumerate(words) if word in openings), len(words))
        if cut < len(words) and words[cut] in ("user", "system"):
            cut -= 1  # the header begins one token before the name
        if words == ["<|sep|>"]:
            cut = 0  # held back until it is known what follows
        lengths.append(here + 1 + cut)
    return lengths


@pytest.mark.parametrize("max_new_tokens", [1, 5])
def test_session_with_its_own_words_equals_one_forward(max_new_tokens: int) -> None:
    model, chat = tiny_model(), word_chat("chatml", separator=True)
    config = replace(CONFIG, max_new_tokens=max_new_tokens, max_dst_tokens=4)
    play(open_session(model, chat, config=config), random_features(NUM_FRAMES))
    fed, logits = model.fed[:], torch.stack(model.speak_logits)
    with torch.no_grad():
        hidden = model.hidden_states(torch.cat(fed, dim=1))[0]
        want = model.speak_head(hidden)

    # Only what ends with a frame is read: the images are the features, projected.
    images = model.project(random_features(NUM_FRAMES)).detach()[:, 0]
    ends = torch.cat(fed, dim=1)[0]
    positions = [int((ends - image).abs().sum(-1).argmin()) for image in images]
    torch.testing.assert_close(logits, want[positions], atol=1e-9, rtol=0)


def test_utterance_that_is_cut_is_closed_in_the_cache() -> None:
    model, chat = tiny_model(), word_chat("chatml")
    model.words = Words(chat, ["first wash " * 50], ["S1->start nonsense " * 50])
    config = replace(CONFIG, theta_speak=0.0, theta_dst=0.0, max_new_tokens=3, max_dst_tokens=1)
    session = open_session(model, chat, config=config)
    outputs = [session.step(frame) for frame in random_features(2)]

    assert outputs[0].text == "first wash first"
    assert outputs[0].updates == (Update("S1", Transition.START),)
    written = "<|im_start|> {} \n {} <|im_end|> \n"
    words = " ".join([
        "<|im_start|> system \n please help Steps: S1: wash. S2: peel. <|im_end|> \n",
        "<image>",
        written.format("dst", "S1->start"),
        written.format("assistant", "first wash first"),
        "<image>",
    ])  # fmt: skip
    ids = torch.tensor([chat.tokenizer.words.index(word) for word in words.split(" ")])
    with torch.no_grad():
        want = model.embed(
            ids[None], (ids == chat.image_id)[None], random_features(2).flatten(0, 1)
        )
    torch.testing.assert_close(torch.cat(model.fed, dim=1)[:, : len(ids)], want)


def test_openings_are_fed_not_generated() -> None:
    model, chat = tiny_model(), word_chat("chatml")
    model.words = Words(chat, ["wait"], DST)
    asked: list[bool] = []
    own = model.words.next_id
    model.words.next_id = lambda *, dst: (asked.append(dst), own(dst=dst))[1]
    session = open_session(model, chat, config=replace(CONFIG, theta_speak=0.0, theta_dst=1.0))

    assert session.step(random_features(1)[0]).text == "wait"
    assert asked == [False, False]  # the word, and the end of turn


@pytest.mark.parametrize("strategy", [Strategy.DROP_ALL, Strategy.DST_REFRESH])
@pytest.mark.parametrize(("name", "separator"), [("compact", False), ("chatml", True)])
def test_strategy_goes_on_from_the_right_prefix(
    strategy: Strategy, name: str, separator: bool
) -> None:
    model, chat = tiny_model(), word_chat(name, separator=separator)
    model.words = Words(chat, UTTERANCES, DST)
    script = read_script(dialogue(user_talk()))
    session = open_session(model, chat, config=replace(SMALL, strategy=strategy))
    features = random_features(60, seed=4)
    outputs = []
    num_events = 0
    for frame in features:
        before = len(model.fed)
        after_event = bool(outputs) and outputs[-1].event is not None
        outputs.append(session.step(frame))
        if after_event:
            num_events += 1
            tracked = (
                outputs[-2].state if strategy is Strategy.DST_REFRESH else script.initial_state
            )
            ids = torch.tensor([prefix_ids(chat, script, tracked)])
            with torch.no_grad():
                want = torch.cat([model.embed_tokens(ids), model.project(frame)[None]], dim=1)
                hidden = model.hidden_states(want)[0, -1]
                prob = float(model.speak_head(hidden).float().sigmoid())
            fed = model.fed[before]  # what the old prefix begins with stays in the cache
            assert fed.shape[1] < want.shape[1]
            torch.testing.assert_close(fed, want[:, -fed.shape[1] :])  # no separator after a prefix
            assert outputs[-1].speak_prob == pytest.approx(prob, abs=1e-6)

    assert num_events > 1
    assert {o.event for o in outputs} == {None, strategy.value}
    assert max(o.context_len for o in outputs) <= 80
    for one, following in itertools.pairwise(outputs):
        if one.event:
            assert one.context_len >= 80 - 24
            assert following.context_len < one.context_len
            assert following.state != {}
        else:
            assert one.context_len < 80 - 24
    assert outputs[-1].state["S2"] is StepState.COMPLETED  # the state outlives the context


@pytest.mark.parametrize("name", ["compact", "chatml"])
@pytest.mark.parametrize("context", ContextSource)
def test_a_model_that_decides_on_no_updates_is_streamed_what_it_was_trained_on(
    context: ContextSource, name: str
) -> None:
    model, chat = tiny_model(dst=False), word_chat(name)
    features, talk = random_features(10), dialogue()
    own = context is ContextSource.OWN
    config = replace(CONFIG, context=context, words=own)
    model.words = Words(chat, UTTERANCES, DST)
    frames = stream_conversation(
        model, chat, talk, features, config, decoder=model.noting_decoder()
    ).frames
    fed = torch.cat(model.fed, dim=1)

    script = read_script(talk, rules_for(False, name, dst=False))
    if own:  # what it said itself, in place of the reference
        assert any(o.speak for o in frames)
        for moment, output in zip(script.moments, frames, strict=True):
            moment.spans = spans(output)
    sequence = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=10**6)
    with torch.no_grad():
        want = model.embed(
            sequence.input_ids[None], sequence.image_mask[None], features.flatten(0, 1)
        )
    torch.testing.assert_close(fed, want[:, : fed.shape[1]], atol=1e-12, rtol=0)
    assert frames[-1].context_len == len(sequence.input_ids)
