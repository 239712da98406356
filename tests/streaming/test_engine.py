from __future__ import annotations

import functools
import random
import re
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
from proassist_lit.errors import StreamError
from proassist_lit.model.config import Decision
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import ContextSource, SpeakRule, Strategy, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.recording import Answered, Recording
from proassist_lit.streaming.session import Session
from proassist_lit.streaming.slot_cache import SlotCache
from proassist_lit.streaming.slot_decoder import SlotDecoder
from proassist_lit.streaming.teacher import teacher_force
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


ROWS = [
    {"context": ContextSource.OWN},
    {"context": ContextSource.OWN, "strategy": Strategy.DROP_MIDDLE, "max_context": 120},
    {"context": ContextSource.OWN, "strategy": Strategy.SUMMARIZE, "max_context": 120},
    {"context": ContextSource.REFERENCE, "max_context": 1000},
    {"context": ContextSource.REFERENCE, "strategy": Strategy.SUMMARIZE, "max_context": 120},
    {"context": ContextSource.REFERENCE, "strategy": Strategy.DST_REFRESH, "max_context": 120},
    {"context": ContextSource.REFERENCE, "words": False},
]


@pytest.mark.parametrize(
    ("changes", "num_slots"),
    [
        pytest.param(
            changes, num_slots,
            id="-".join(map(str, [num_slots, *changes.values()])),
            marks=() if (num_slots, changes) == (4, ROWS[-1]) else pytest.mark.road,
        )
        for changes in ROWS
        for num_slots in (4, 16)
    ],
)  # fmt: skip
def test_rows_of_thresholds_equal_separate_runs(changes: dict, num_slots: int) -> None:
    model, chat = tiny_model(7), word_chat()
    records = [talk(i, 30 + 5 * i) for i in range(3)]
    features = [random_features(r.num_frames, 1, seed=i) for i, r in enumerate(records)]
    silent = in_silence(model, chat, records[-1], features[-1])
    shares = [thetas(silent, share) for share in (0.03, 0.1, 0.1, 0.25)]
    rows = [Thresholds(s["theta_speak"], s["theta_dst"]) for s in shares]
    rows[2] = Thresholds(rows[2].speak, rows[0].dst)  # speaks as one row, updates as another
    rows.append(Thresholds(rows[1].speak, rows[1].dst, rise=0.05))
    config = replace(CONFIG, theta_speak=0.5, theta_dst=0.5, **changes)
    engine = Engine(model, chat, config, num_tokens_per_img=1, thresholds=rows, num_slots=num_slots)
    counted: list[int] = []

    answered = list(engine.run(recordings(records, features), on_frames=counted.append))

    assert sorted((a.index, a.row) for a in answered) == [
        (i, row) for i in range(3) for row in range(5)
    ]
    assert sum(counted) == 5 * sum(len(f) for f in features)
    different = set()
    for got in answered:
        row = rows[got.row]
        alone = replace(config, theta_speak=row.speak, theta_dst=row.dst, rise=row.rise)
        want = by_session(model, chat, records[got.index], features[got.index], alone)
        assert got.error is None
        assert_equal(got.frames, want, 1e-6)
        different.add(tuple((f.speak, f.dst) for f in got.frames))
    assert len(different) > 9


@pytest.mark.road
@pytest.mark.parametrize("context", ContextSource)
@pytest.mark.parametrize(
    ("rule", "values"),
    [(SpeakRule.RUNNING_SUM, (2.0, 4.0, 8.0, 16.0)), (SpeakRule.Z_SCORE, (0.5, 1.0, 1.5, 2.5))],
    ids=lambda x: getattr(x, "value", ""),
)
def test_rows_of_a_rule_equal_separate_runs(
    rule: SpeakRule, values: tuple[float, ...], context: ContextSource
) -> None:
    """Each row remembers its own sum, though all share what they decided alike."""
    model, chat = tiny_model(7), word_chat()
    records = [talk(i, 30 + 5 * i) for i in range(2)]
    features = [random_features(r.num_frames, 1, seed=i) for i, r in enumerate(records)]
    dst = thetas(in_silence(model, chat, records[-1], features[-1]), 0.05)["theta_dst"]
    rows = [Thresholds(value, dst) for value in values]
    config = replace(CONFIG, rule=rule, context=context, max_context=1000)
    engine = Engine(model, chat, config, num_tokens_per_img=1, thresholds=rows, num_slots=8)

    answered = list(engine.run(recordings(records, features)))

    different = set()
    for got in answered:
        row = rows[got.row]
        alone = replace(config, theta_speak=row.speak, theta_dst=row.dst)
        want = by_session(model, chat, records[got.index], features[got.index], alone)
        assert_equal(got.frames, want, 1e-6)
        different.add((got.index, tuple(f.speak for f in got.frames)))
    assert len(different) > 5


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


def test_engine_equals_session_in_float32() -> None:
    compare(5, dtype=torch.float32)


def test_bad_streams_are_named_and_the_others_finish() -> None:
    model, chat = tiny_model(), word_chat()
    records = [talk(i, 20) for i in range(4)]
    features = [random_features(20, 1, seed=i) for i in range(4)]
    features[1] = features[1].clone()
    features[1][7, 0, 2] = float("nan")
    features[2] = features[2][:10]
    config = replace(CONFIG, theta_speak=0.9, theta_dst=0.9)

    answered = by_engine(model, chat, records, features, config, num_slots=2)

    assert [a.error is None for a in answered] == [True, False, False, True]
    assert "video1" in str(answered[1].error)
    assert "frame 7: features hold NaN" in str(answered[1].error)
    assert len(answered[1].frames) == 7  # what it had said is kept
    assert "watches 20 frames, but there are features of 10" in str(answered[2].error)
    for i in (0, 3):
        assert_equal(answered[i].frames, by_session(model, chat, records[i], features[i], config),
                     1e-6)  # fmt: skip


def test_a_full_slot_and_a_long_text_are_named() -> None:
    model, chat = tiny_model(), word_chat()
    records = [talk(0, 60), dialogue((FramesTurn(start=0, end=2), UserTurn(content="wait " * 200),
                                      FramesTurn(start=2, end=4)))]  # fmt: skip
    features = [random_features(60, 1), random_features(4, 1)]
    config = replace(CONFIG, theta_speak=1.0, theta_dst=1.0, strategy=Strategy.NONE,
                     max_context=100)  # fmt: skip

    full, long = by_engine(model, chat, records, features, config)

    assert isinstance(full.error, StreamError)
    assert re.search(
        r"stream .*video0.*: its 60 frames are too many for stream.strategy=none, even if nothing "
        r"is said: .* frame \d+: the context is full .*choose a stream.strategy", str(full.error)
    )  # fmt: skip
    assert not full.frames  # it was not begun
    with pytest.raises(StreamError, match="even if nothing is said"):
        stream_conversation(model, chat, records[0], features[0], config)
    assert "frame 2: the text that arrives takes 202 tokens" in str(long.error)
    assert len(long.frames) == 2  # those before are answered, as by a session


def test_a_slot_that_is_full_of_words_keeps_what_was_answered() -> None:
    model, chat = tiny_model(), word_chat()
    config = replace(CONFIG, theta_speak=0.0, theta_dst=1.0, strategy=Strategy.NONE,
                     max_context=300)  # fmt: skip

    [full] = by_engine(model, chat, [talk(0, 60)], [random_features(60, 1)], config)

    assert "the context is full" in str(full.error)
    assert "even if" not in str(full.error)
    assert len(full.frames) > 10


def test_a_stream_without_frames_is_refused() -> None:
    model, chat = tiny_model(), word_chat()
    empty = Recording(name="empty", script=replace(read_script(talk(0, 4)), moments=[]),
                      features=lambda: random_features(0, 1), fps=2.0)  # fmt: skip

    [answered] = Engine(model, chat, CONFIG, num_tokens_per_img=1).run([empty])

    assert "stream 'empty': has no frames" in str(answered.error)


def test_decisions_near_their_threshold_are_read_again_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views: list[KVCache] = []

    def noting(self: SlotCache, slot: int, own=SlotCache.view) -> KVCache:
        views.append(own(self, slot))
        return views[-1]

    monkeypatch.setattr(SlotCache, "view", noting)

    answered = compare(5, reread_margin=0.05, num_streams=3)

    frames = [f for a in answered for f in a.frames]
    assert 0 < len(views) < len(frames) / 2


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
