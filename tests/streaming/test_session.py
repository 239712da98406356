from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import (
    AssistantTurn,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.errors import ConfigError, FeatureError, StreamError
from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Moment, Script, Text, read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput, StepState, Transition, Update, format_updates
from tests.fakes import (
    DIALOGUE,
    STEPS,
    ScriptedModel,
    Words,
    dialogue,
    random_features,
    tiny_model,
    word_chat,
)

UTTERANCES = ("first wash", "it is all good now", "wait")
DST = ("S1->start", "S1->complete;S2->start", "S2->complete")
NUM_FRAMES = 30
CONFIG = StreamConfig(
    theta_speak=0.5, theta_dst=0.5, max_new_tokens=6, max_dst_tokens=4, max_context=4096
)
CASES = [
    pytest.param(name, k, separator, id=f"{name}-K{k}-{'sep' if separator else 'plain'}")
    for name in ("compact", "chatml")
    for k in (1, 5)
    for separator in (False, True)
]


def user_talk(num_frames: int = NUM_FRAMES) -> tuple[Turn, ...]:
    """Frames with users and system between them; nothing of a reference."""
    return (
        SystemTurn(content="please help"),
        UserTurn(content="make soup"),
        FramesTurn(start=4, end=10),
        UserTurn(content="how many"),
        SystemTurn(content="use the knife"),
        FramesTurn(start=10, end=11),
        UserTurn(content="wait"),
        FramesTurn(start=11, end=4 + num_frames),
    )


def open_session(
    model: ScriptedModel, chat: Chat, *, config: StreamConfig = CONFIG, k: int = 1, steps=STEPS
) -> Session:
    script = read_script(dialogue(user_talk(), steps=steps))
    return Session(model, chat, script, config, fps=2.0, num_tokens_per_img=k,
                   start_frame_idx=4, name="kitchen", decoder=model.noting_decoder())  # fmt: skip


def play(session: Session, features: Tensor) -> list[FrameOutput]:
    script = read_script(dialogue(user_talk(len(features))))
    return [session.step(frame, heard(script, i)) for i, frame in enumerate(features)]


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
    silence = open_session(model, chat).step(frame)

    assert plain == turns
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


# -- the context ------------------------------------------------------------------------------

SMALL = replace(CONFIG, max_new_tokens=8, max_dst_tokens=4, reserve=24, max_context=80)


def test_full_context_without_a_strategy_names_stream_and_frame() -> None:
    model, chat = tiny_model(), word_chat()
    config = replace(SMALL, theta_speak=1.0, theta_dst=1.0, strategy=Strategy.NONE)
    session = open_session(model, chat, config=config)
    room = 80 - 24 - session.context_len
    for frame in random_features(room):
        session.step(frame)

    for _ in range(2):  # the session stays as it was
        with pytest.raises(
            StreamError,
            match=rf"stream 'kitchen', frame {4 + room}: the context is full \(56 of 80 tokens, "
            r"24 kept in reserve\); raise stream\.max_context",
        ):
            session.step(random_features(1)[0])
    assert session.context_len == 56


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


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["theta_speak", "theta_dst"])
def test_session_refuses_unset_thresholds(missing: str) -> None:
    with pytest.raises(ConfigError, match=r"theta_speak and stream\.theta_dst are not set"):
        open_session(tiny_model(), word_chat(), config=replace(CONFIG, **{missing: None}))


def test_session_refuses_a_reserve_that_a_frame_may_exceed() -> None:
    chat = word_chat("chatml", separator=True)
    # 5 image tokens, a separator, two openings of 3, two closings of 2, 4 + 8 words
    needed = 5 + 1 + 6 + 4 + 12

    with pytest.raises(ConfigError, match=rf"reserve is {needed - 1}.*takes {needed} tokens"):
        open_session(tiny_model(), chat, config=replace(SMALL, reserve=needed - 1), k=5)
    open_session(tiny_model(), chat, config=replace(SMALL, reserve=needed), k=5)


def test_session_refuses_a_prompt_that_leaves_no_room() -> None:
    with pytest.raises(ConfigError, match=r"stream 'kitchen': the prompt .* stream\.max_context"):
        open_session(tiny_model(), word_chat(), config=replace(SMALL, max_context=34))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_session_refuses_features_that_are_not_finite(bad: float) -> None:
    session = open_session(tiny_model(), word_chat())
    features = random_features(2)
    first = session.step(features[0])
    broken = features[1].clone()
    broken[0, 3] = bad

    with pytest.raises(StreamError, match=r"stream 'kitchen', frame 5: features hold NaN"):
        session.step(broken)
    other = open_session(tiny_model(), word_chat())
    assert other.step(features[0]) == first
    assert session.step(features[1]) == other.step(features[1])  # it stayed as it was


def test_session_refuses_another_number_of_tokens_per_frame() -> None:
    session = open_session(tiny_model(), word_chat(), k=5)

    with pytest.raises(StreamError, match=r"frame 4: features are \(1, 6\), expected \(5, E\)"):
        session.step(random_features(1, 1)[0])
    with pytest.raises(StreamError, match=r"frame 4: features are \(6,\), expected"):
        session.step(random_features(1, 1)[0, 0])


def test_session_refuses_features_of_another_width_and_stays_as_it_was() -> None:
    session = open_session(tiny_model(), word_chat())

    with pytest.raises(FeatureError, match=r"features are 4 wide.*reads 6"):
        session.step(random_features(1)[0, :, :4])

    frame = random_features(1)[0]
    assert session.step(frame) == open_session(tiny_model(), word_chat()).step(frame)


def test_stream_conversation_refuses_too_few_features() -> None:
    with pytest.raises(FeatureError, match=r"train\.jsonl:1: .* 10 frames, but .* of 9 only"):
        stream_conversation(tiny_model(), word_chat(), dialogue(), random_features(9), CONFIG)


def test_stream_conversation_reports_every_frame_as_it_comes() -> None:
    seen: list[FrameOutput] = []
    transcript = stream_conversation(
        tiny_model(), word_chat(), dialogue(), random_features(), CONFIG, on_frame=seen.append
    )

    assert tuple(seen) == transcript.frames
    assert [f.frame_idx for f in seen] == list(range(10, 20))
    assert transcript.steps == (("S1", "wash"), ("S2", "peel"))
    assert transcript.references[0].text == "first wash"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"theta_speak": 1.5}, r"stream\.theta_speak must be in \[0, 1\] or null, got 1\.5"),
        ({"theta_dst": -0.1}, r"stream\.theta_dst must be in"),
        ({"min_gap_frames": -1}, r"stream\.min_gap_frames must be at least 0, got -1"),
        ({"max_new_tokens": 0}, r"stream\.max_new_tokens must be at least 1, got 0"),
        ({"max_dst_tokens": 0}, r"stream\.max_dst_tokens must be at least 1, got 0"),
        ({"reserve": 9000}, r"stream\.reserve 9000 must be between 1 and stream\.max_context"),
    ],
)
def test_stream_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**setting)
