from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, FramesTurn, SystemTurn, Turn, UserTurn
from proassist_lit.errors import ConfigError, FeatureError, StreamError
from proassist_lit.model.config import Decision
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import FORMATS, Chat, Role
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.reference import ReferenceSession, reference_turn
from proassist_lit.streaming.reference_context import (
    ReferenceConfig,
    ReferenceText,
    ReferenceTrace,
    drop_middle,
)
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput
from tests.fakes import (
    STEPS,
    ScriptedModel,
    Words,
    WordTokenizer,
    dialogue,
    random_features,
    tiny_model,
)

UTTERANCES = ("first wash", "it is all good now", "wait")
CONFIG = ReferenceConfig(strategy="none", max_length=8)


class MarkedTokenizer(WordTokenizer):
    """Writes special tokens out, too, without spaces around them."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        if skip_special_tokens:
            return super().decode(ids, skip_special_tokens=True)
        text = " ".join(self.words[i] for i in ids)
        return re.sub(r" *(<\|\w+\|>|<image>) *", r"\1", text)


def chat(name: str = "compact", separator: str = "") -> Chat:
    return Chat(replace(FORMATS[name], separator=separator), MarkedTokenizer())


def speaking(formatter: Chat, utterances: Sequence[str] = UTTERANCES) -> ScriptedModel:
    """Decides by itself; what it writes is given, and opens as it should."""
    model = tiny_model(dst=False)
    opening = formatter.format.openings[Role.ASSISTANT]
    model.words = Words(formatter, [opening + words for words in utterances], ["nonsense"])
    return model


TURNS = (
    SystemTurn(content="please help"),
    SystemTurn(content="Task knowledge: wash. peel."),
    UserTurn(content="make soup"),
    FramesTurn(start=4, end=30),
)


def open_session(
    model: ScriptedModel, formatter: Chat, config: ReferenceConfig = CONFIG, *,
    turns: tuple[Turn, ...] = TURNS, k: int = 1,
) -> ReferenceSession:  # fmt: skip
    script = read_script(dialogue(turns, steps=()), PROASSIST)
    return ReferenceSession(model, formatter, script, config, fps=2.0, num_tokens_per_img=k,
                            start_frame_idx=4, name="kitchen")  # fmt: skip


def play(
    session: ReferenceSession, turns: tuple[Turn, ...] = TURNS, *, seed: int = 0
) -> tuple[list[FrameOutput], list[ReferenceTrace]]:
    script = read_script(dialogue(turns, steps=()), PROASSIST)
    outputs, traces = [], []
    for i, frame in enumerate(random_features(len(script.moments), seed=seed)):
        moment = script.moments[i]
        outputs.append(
            session.step(frame, heard(script, i), said=Said(moment.before, moment.spans))
        )
        assert session.last is not None
        traces.append(session.last)
    return outputs, traces


def ids_of(formatter: Chat, text: str) -> tuple[int, ...]:
    return tuple(ReferenceText(formatter).tokenize(text))


# -- where both agree -------------------------------------------------------------------------


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


# -- its own rules ----------------------------------------------------------------------------


def test_last_generated_token_is_carried_before_what_a_user_says() -> None:
    formatter = chat(separator="<|sep|>")
    model = speaking(formatter, ["first wash peel fry"])
    session = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1.0, max_length=3))

    first = session.step(random_features(1)[0])
    session.step(random_features(1)[0], "how many")

    assert first.text == "first wash"
    assert session.last is not None
    assert session.last.frame.input_ids == ids_of(  # cut: the turn stays open
        formatter, "wash <|user|> how many <|end|> <image>"
    )
    quiet = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1e-9))
    quiet.step(random_features(1)[0])
    quiet.step(random_features(1)[0])
    assert quiet.last is not None
    assert quiet.last.frame.input_ids == ids_of(formatter, "<|sep|> <image>")


def test_bos_stands_only_before_messages_of_the_first_frame() -> None:
    formatter, bare = chat(), (FramesTurn(start=4, end=30),)
    frame = random_features(1)[0]

    session = open_session(tiny_model(dst=False), formatter, turns=bare)
    for heard_text, want in (("", "<image>"), ("wait", "<|user|> wait <|end|> <image>")):
        session.step(frame, heard_text)
        assert session.last is not None
        assert session.last.frame.input_ids[-len(ids_of(formatter, want)) :] == ids_of(
            formatter, want
        )
        assert ids_of(formatter, "<|begin|>")[0] not in session.last.frame.input_ids
    told = open_session(tiny_model(dst=False), formatter, turns=bare)
    told.step(frame, "wait")
    assert told.last is not None
    assert told.last.frame.input_ids == ids_of(formatter, "<|begin|> <|user|> wait <|end|> <image>")


def test_threshold_of_zero_leaves_the_decision_to_the_next_token() -> None:
    formatter = chat()
    model = tiny_model(dst=False)
    config = replace(CONFIG, not_talk_threshold=0.0)
    model.words = Words(formatter, [""], ["nonsense"])  # nothing but the end of turn

    silent = open_session(model, formatter, config).step(random_features(1)[0])
    model.words = Words(formatter, ["wait"], ["nonsense"])
    spoken = open_session(model, formatter, config).step(random_features(1)[0])

    assert not silent.speak
    assert silent.text == ""
    assert spoken.speak
    assert spoken.text == "wait"
    assert silent.speak_prob == spoken.speak_prob > 0


def test_silent_token_is_forbidden_as_first_token_only() -> None:
    formatter = chat()
    model = tiny_model(dst=False, spread=1.0)
    weight = model.lm.get_output_embeddings().weight
    with torch.no_grad():
        weight[formatter.end_of_turn_id] = 0.0
        bias = torch.zeros(len(weight), dtype=torch.float64)
        bias[formatter.end_of_turn_id] = 1e6  # always the most probable
    own = model.lm_logits
    model.lm_logits = lambda hidden, *, dst=False: own(hidden, dst=dst) + bias  # type: ignore[method-assign]

    session = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1.0))
    session.step(random_features(1)[0])

    assert session.last is not None
    written = session.last.frame.output_ids
    assert written[0] != formatter.end_of_turn_id
    assert written[1:] == (formatter.end_of_turn_id,)


def test_differences_compare_with_the_frame_before() -> None:
    formatter = chat()
    config = replace(CONFIG, not_talk_threshold="diff0.05", init_last_not_talk_prob=0.0)
    outputs, traces = play(open_session(tiny_model(dst=False), formatter, config))

    probs = [0.0, *(trace.frame.not_talk_prob for trace in traces)]
    want = [before - now > 0.05 or now <= 0.5 for before, now in itertools.pairwise(probs)]
    assert [output.speak for output in outputs] == want
    assert any(o.speak and o.speak_prob < 0.5 for o in outputs)  # the difference decided


def test_differences_compare_with_a_summary_where_one_was_asked_for() -> None:
    formatter = chat()
    config = ReferenceConfig(
        strategy="summarize", eval_max_seq_len=60, reserved_seq_len=20, max_length=8,
        not_talk_threshold="diff0.02",
    )  # fmt: skip
    turns = (*TURNS[:3], FramesTurn(start=4, end=160))
    outputs, traces = play(open_session(speaking(formatter), formatter, config, turns=turns), turns)

    num_decided = 0
    for t, (one, following) in enumerate(itertools.pairwise(traces)):
        now = following.frame.not_talk_prob
        before = (one.summary or one.frame).not_talk_prob
        assert outputs[t + 1].speak == (now <= 0.5 or before - now > 0.02)
        num_decided += (before - now > 0.02) != (one.frame.not_talk_prob - now > 0.02) and now > 0.5
    assert num_decided  # it made a difference


def test_reference_context_carries_the_separator_after_silence() -> None:
    turns = (FramesTurn(start=4, end=5), UserTurn(content="wait"), FramesTurn(start=5, end=7),
             AssistantTurn(content="one"), FramesTurn(start=7, end=8))  # fmt: skip
    formatter = chat(separator="<|sep|>")
    config = replace(CONFIG, use_gt_context=True, not_talk_threshold=1.0)

    _, traces = play(open_session(speaking(formatter), formatter, config, turns=turns), turns)

    fed = [
        "<image>",
        "<|sep|> <|user|> wait <|end|> <image>",
        "<|sep|> <image>",
        "<|assistant|> one <|end|> <image>",
    ]
    assert [trace.frame.input_ids for trace in traces] == [ids_of(formatter, text) for text in fed]


def test_drop_all_forgets_the_prompt_and_keeps_what_waits() -> None:
    formatter = chat(separator="EOS")
    config = replace(CONFIG, strategy="drop_all", eval_max_seq_len=60, reserved_seq_len=20)
    outputs, traces = play(open_session(speaking(formatter), formatter, config))

    events = [t for t, trace in enumerate(traces[:-1]) if trace.event]
    assert events
    for t in events:
        assert outputs[t].event == "drop_all"
        assert traces[t].cache_end == traces[t + 1].frame.cache_in == 0
        assert traces[t + 1].frame.input_ids == ids_of(formatter, "<|end|> <image>")


def test_drop_middle_leaves_keys_where_they_were_rotated_to() -> None:
    generator = torch.Generator().manual_seed(1)
    cache = KVCache(2, capacity=4)
    whole = [torch.randn(2, 1, 2, 9, 4, generator=generator) for _ in range(2)]
    for layer, (keys, values) in zip(cache.layers, whole, strict=True):
        layer.update(keys, values)

    assert not drop_middle(cache, start=3, tail=10)  # shorter than the tail: whole, full or not
    assert not drop_middle(cache, start=3, tail=8)  # nothing lies between the two
    assert not drop_middle(cache, start=3, tail=6)
    assert len(cache) == 9
    assert drop_middle(cache, start=3, tail=2)

    assert len(cache) == 5
    for layer, (keys, values) in zip(cache.layers, whole, strict=True):
        kept = [0, 1, 2, 7, 8]
        assert torch.equal(layer.keys[:, :, :5], keys[:, :, kept])
        assert torch.equal(layer.values[:, :, :5], values[:, :, kept])


def test_drop_middle_keeps_all_up_to_the_first_words_of_a_user() -> None:
    formatter = chat()
    config = ReferenceConfig(
        strategy="drop_middle", eval_max_seq_len=60, reserved_seq_len=20, last_keep_len=10,
        max_length=8, not_talk_threshold=1.0,
    )  # fmt: skip
    _, traces = play(open_session(speaking(formatter), formatter, config))

    start = traces[0].frame.cache_out  # what was written at that frame among it
    assert start == len(traces[0].frame.input_ids) + len(traces[0].frame.output_ids) - 1
    assert {trace.init_cache for trace in traces} == {start}
    events = [trace for trace in traces if trace.event]
    assert {trace.event for trace in events} == {"drop_middle"}
    assert {trace.cache_end for trace in events} == {start + 10}
    for one, following in itertools.pairwise(traces):
        assert following.frame.cache_in == one.cache_end

    bare = (FramesTurn(start=4, end=30),)
    _, traces = play(open_session(speaking(formatter), formatter, config, turns=bare), bare)
    assert {trace.event for trace in traces} == {None, "drop_all"}  # there is no start to keep
    assert {trace.init_cache for trace in traces} == {None}


@pytest.mark.parametrize("talks", [True, False])
def test_summary_passes_the_decision_and_replaces_what_waits(talks: bool) -> None:
    formatter = chat(separator="EOS")
    model = speaking(formatter, ["well done"])
    with torch.no_grad():
        model.speak_head.net.bias.fill_(50.0 if talks else -50.0)
    config = replace(CONFIG, strategy="summarize", eval_max_seq_len=60, reserved_seq_len=20,
                     not_talk_threshold=1.0)  # fmt: skip
    _, traces = play(open_session(model, formatter, config))

    t = next(t for t, trace in enumerate(traces) if trace.event)
    trace = traces[t]
    assert trace.summary is not None
    assert trace.event == "summarize"
    assert trace.summary.input_ids == ids_of(  # the frame once more
        formatter, "<|system|> Please summarize the progress. <|end|> <image>"
    )
    assert trace.summary.cache_in == trace.frame.cache_out
    summary = "well done" if talks else ""  # empty where the head says so
    assert trace.summary_text == summary
    prompt = f"please help {summary} Task knowledge: wash. peel."
    assert trace.next_text == f"<|begin|><|system|>{prompt}<|end|>"
    assert trace.cache_end == 0
    assert traces[t + 1].frame.input_ids == ids_of(formatter, trace.next_text + "<image>")


def test_only_the_first_assistant_turn_after_a_frame_is_known() -> None:
    turns = (
        FramesTurn(start=0, end=1), AssistantTurn(content="one"), AssistantTurn(content="two"),
        FramesTurn(start=1, end=2), UserTurn(content="wait"), AssistantTurn(content="three"),
        FramesTurn(start=2, end=3),
    )  # fmt: skip
    moments = read_script(dialogue(turns, steps=()), PROASSIST).moments

    assert [reference_turn(moment.spans) for moment in moments] == ["one", None, None]


def test_only_users_and_system_are_heard() -> None:
    formatter, frame = chat(), random_features(1)[0]
    texts = [Text(role=Role.ASSISTANT, content="wait"), Text(role=Role.USER, content="how many")]

    both = open_session(tiny_model(dst=False), formatter).step(frame, texts)

    assert both == open_session(tiny_model(dst=False), formatter).step(frame, "how many")
    assert both.user_text == "how many"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("<|assistant|> first wash <|end|>", "first wash"),
        ("first wash", "first wash"),
        ("well <|assistant|> first <|assistant|> wash <|end|>", "first<|assistant|>wash"),
        ("<|user|> first <|end|> wash", "<|user|>first"),
        ("<|begin|> first <image> wash <|sep|> <|end|>", "firstwash"),
        ("<|end|>", ""),
    ],
)
def test_text_is_cleaned_as_in_the_reference(written: str, text: str) -> None:
    reader = ReferenceText(chat(separator="<|sep|>"))

    assert reader.clean(reader.tokenize(written)) == text


@pytest.mark.parametrize("name", ["compact", "chatml", "llama3", "gemma"])
def test_turns_equal_those_of_the_formatter(name: str) -> None:
    formatter = chat(name)

    for role in (Role.SYSTEM, Role.USER, Role.ASSISTANT):
        text = ReferenceText(formatter).turn(role, " first wash ")
        assert list(ids_of(formatter, text)) == formatter.turn_ids(role, "first wash")


def test_decisions_by_the_silent_token_need_no_head() -> None:
    formatter = chat()
    model = tiny_model(dst=False, decision=Decision.SILENT_TOKEN, chat=formatter)

    config = replace(CONFIG, use_gt_context=True)  # no decision changes the ones after it
    _, traces = play(open_session(model, formatter, config))
    probs = [trace.frame.not_talk_prob for trace in traces]
    middle = sorted(probs)[len(probs) // 2]
    outputs, _ = play(open_session(model, formatter, replace(config, not_talk_threshold=middle)))

    assert [o.speak_prob for o in outputs] == [1 - prob for prob in probs]
    assert [o.speak for o in outputs] == [prob <= middle for prob in probs]
    assert {o.speak for o in outputs} == {True, False}
    assert all(o.dst_prob is None and not o.dst and o.state == {} for o in outputs)


def test_steps_and_their_state_are_told_and_never_change() -> None:
    formatter = chat()
    script = read_script(dialogue(TURNS, steps=STEPS), PROASSIST)
    session = ReferenceSession(
        tiny_model(), formatter, script, CONFIG, fps=2.0, num_tokens_per_img=1
    )

    output = session.step(random_features(1)[0], heard(script, 0))

    assert session.last is not None
    told = ids_of(formatter, "please help Steps: S1: wash. S2: peel.")
    assert session.last.frame.input_ids[2 : 2 + len(told)] == told
    assert output.state == session.state == script.initial_state
    assert output.dst_prob is None


# -- errors -----------------------------------------------------------------------------------


def test_refusals_leave_the_session_as_it_was() -> None:
    formatter, frames = chat(), random_features(2)
    session = open_session(tiny_model(dst=False), formatter)
    first = session.step(frames[0])
    broken = frames[1].clone()
    broken[0, 3] = float("nan")

    with pytest.raises(StreamError, match=r"stream 'kitchen', frame 5: features hold NaN"):
        session.step(broken)
    with pytest.raises(StreamError, match=r"frame 5: features are \(6,\), expected \(1, E\)"):
        session.step(frames[1][0])
    with pytest.raises(FeatureError, match=r"features are 4 wide.*reads 6"):
        session.step(frames[1][:, :4])

    other = open_session(tiny_model(dst=False), formatter)
    assert other.step(frames[0]) == first
    assert session.step(frames[1]) == other.step(frames[1])


def test_full_context_without_a_strategy_is_refused() -> None:
    config = ReferenceConfig(strategy="none", eval_max_seq_len=40, reserved_seq_len=30)
    session = open_session(tiny_model(dst=False), chat(), config)
    session.step(random_features(1)[0], "how many")

    with pytest.raises(StreamError, match=r"'kitchen', frame 5: the context is full \(\d+ of 40"):
        session.step(random_features(1)[0])


def test_pictures_go_through_the_encoder() -> None:
    formatter, frame = chat(), random_features(1)[0]
    script = read_script(dialogue(TURNS, steps=()), PROASSIST)
    session = ReferenceSession(
        tiny_model(dst=False), formatter, script, CONFIG, fps=2.0, num_tokens_per_img=1,
        start_frame_idx=4, encode=lambda picture: frame,
    )  # fmt: skip

    seen = session.step(torch.zeros(2, 2, 3, dtype=torch.uint8))

    assert seen == open_session(tiny_model(dst=False), formatter).step(frame)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strategy": Strategy.DST_REFRESH}, r"strategy is .*dst_refresh.* choose one of none"),
        ({"not_talk_threshold": 1.5}, r"not_talk_threshold must be in \[0, 1\] or 'diffX', got 1"),
        ({"not_talk_threshold": "diff"}, r"is 'diff'; write a number"),
        ({"not_talk_threshold": "rise0.1"}, r"is 'rise0.1'; write a number"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"last_keep_len": 0}, r"last_keep_len must be at least 1"),
        ({"summary_max_length": 0}, r"summary_max_length must be at least 1"),
        ({"reserved_seq_len": 5000}, r"reserved_seq_len 5000 must be between 1 and eval_max"),
    ],
)
def test_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReferenceConfig(**setting)


def test_strategies_may_be_ours() -> None:
    assert ReferenceConfig(strategy=Strategy.SUMMARIZE).strategy == "summarize"
