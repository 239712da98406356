from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import FramesTurn, SystemTurn, UserTurn
from proassist_lit.errors import ConfigError, FeatureError, RecordError, StreamError
from proassist_lit.judge.dialogue import assistant_lines, reference_lines
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.rules import OURS, PROASSIST, SequenceRules
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.compat import reference_config
from proassist_lit.streaming.config import ContextSource, Kernels, Strategy, StreamConfig
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import (
    stream_as_reference,
    stream_conversation,
    stream_conversations,
)
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.reference import ReferenceSession
from proassist_lit.types import FrameOutput, Transcript
from tests.fakes import VISION_SIZE, dialogue, random_features, tiny_model
from tests.streaming.reference_sessions import chat as marked_chat

CONFIG = StreamConfig(
    theta_speak=0.6, theta_dst=0.6, max_new_tokens=5, max_dst_tokens=5,
    strategy=Strategy.DROP_MIDDLE,
)  # fmt: skip


@pytest.mark.parametrize("compat", [False, True], ids=["ours", "reference"])
def test_what_the_system_tells_is_not_the_users_words(compat: bool) -> None:
    turns = (
        SystemTurn(content="please help"),
        UserTurn(content="make soup"),
        SystemTurn(content="Task knowledge: wash. peel."),
        FramesTurn(start=4, end=8),
    )
    answer = stream_as_reference if compat else stream_conversation

    transcript = answer(tiny_model(), marked_chat(), dialogue(turns), random_features(4), CONFIG)

    assert [frame.user_text for frame in transcript.frames] == ["make soup", "", "", ""]
    lines = (*assistant_lines(transcript), *reference_lines(transcript))
    assert "[2.0s] User: make soup" in lines
    assert not any("Task knowledge" in line for line in lines)


@pytest.mark.parametrize(
    ("fits", "compat"),
    [(True, False), (False, False), (True, True)],
    ids=["engine", "sessions", "reference"],
)
def test_one_bad_stream_does_not_stop_the_others(
    fits: bool, compat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: fits))
    model, chat = tiny_model(), marked_chat()
    records = [dialogue(video_uid=f"video{i}") for i in range(3)]
    inputs = [random_features(10, seed=i) for i in range(3)]
    inputs[1][4] = float("nan")
    counted: list[int] = []

    def features(number: int) -> Tensor:
        return inputs[number]

    answered = stream_conversations(
        model, chat, records, features, CONFIG,
        num_tokens_per_img=1, on_frames=counted.append, compat=compat,
    )  # fmt: skip
    done: dict[int, Transcript] = {}
    with pytest.raises(StreamError, match=r"video1.*frame 14: features hold NaN"):
        done.update((number, transcript) for number, _, transcript in answered)

    assert sorted(done) == [0, 2]
    assert sum(counted) == 24
    answer = stream_as_reference if compat else stream_conversation
    for number, transcript in done.items():
        alone = answer(model, chat, records[number], inputs[number], CONFIG)
        for got, want in zip(transcript.frames, alone.frames, strict=True):
            assert (got.speak, got.text, got.updates) == (want.speak, want.text, want.updates)
            torch.testing.assert_close(got.speak_prob, want.speak_prob, rtol=0, atol=1e-6)
            assert (got.dst_prob is None) == compat  # the reference asks no such head


@pytest.mark.parametrize(
    ("fits", "compat"),
    [(True, False), (False, False), (False, True)],
    ids=["engine", "sessions", "reference"],
)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (random_features(9), r"^train\.jsonl:1: .* 10 frames, but .* of 9 only; encode"),
        (random_features(10)[..., :4], r"^train\.jsonl:1: features are 4 wide, .* 6; use the enc"),
    ],
    ids=["few", "narrow"],
)
def test_features_that_do_not_fit_name_the_record(
    fits: bool, compat: bool, features: Tensor, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: fits))

    answered = stream_conversations(
        tiny_model(), marked_chat(), [dialogue()], lambda _: features, CONFIG,
        num_tokens_per_img=1, compat=compat,
    )  # fmt: skip
    with pytest.raises(RecordError, match=message):
        list(answered)


@pytest.mark.parametrize("compat", [False, True], ids=["engine", "reference"])
def test_streams_of_one_name_bear_those_of_their_data_sets(compat: bool) -> None:
    records = [replace(dialogue(), dataset=name, names_dataset=True) for name in ("tea", "soup")]
    inputs = [random_features(10), random_features(10)]
    inputs[1][4] = float("nan")
    answered = stream_conversations(
        tiny_model(), marked_chat(), records, lambda number: inputs[number], CONFIG,
        num_tokens_per_img=1, compat=compat,
    )  # fmt: skip
    names: list[str] = []
    with pytest.raises(StreamError, match=r"stream 'soup/video_0_user', frame 14: features hold"):
        names.extend(transcript.stream_id for _, _, transcript in answered)
    assert names == ["tea/video_0_user"]


@pytest.mark.parametrize("compat", [False, True], ids=["sessions", "reference"])
def test_one_decoder_of_the_configured_kernels_answers_all_streams(
    compat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "fits", staticmethod(lambda _: False))
    made: list[Kernels] = []

    def noting(model: AssistantModel, kernels: Kernels = Kernels.AUTO) -> Decoder:
        made.append(kernels)
        return make_decoder(model, kernels)

    for user in ("evaluate", "session", "reference"):
        where = f"proassist_lit.streaming.{user}.make_decoder"
        monkeypatch.setattr(where, noting, raising=False)
    records = [dialogue(video_uid=f"video{i}") for i in range(2)]
    answered = stream_conversations(
        tiny_model(), marked_chat(), records, lambda _: random_features(10),
        replace(CONFIG, kernels=Kernels.TORCH), num_tokens_per_img=1, compat=compat,
        thresholds=[Thresholds(0.6, 0.6), Thresholds(0.4, 0.6)],
    )  # fmt: skip

    assert len(list(answered)) == 4
    assert made == [Kernels.TORCH]


def by_hand(config: StreamConfig, rules: SequenceRules) -> tuple[FrameOutput, ...]:
    script, features = read_script(dialogue(), rules), random_features(10)
    session = ReferenceSession(
        tiny_model(), marked_chat(), script, reference_config(config), fps=2.0,
        num_tokens_per_img=1, start_frame_idx=10, name="kitchen",
    )  # fmt: skip
    return tuple(
        session.step(features[i], heard(script, i), said=Said(moment.before, moment.spans))
        for i, moment in enumerate(script.moments)
    )


@pytest.mark.parametrize("context", ContextSource)
def test_stream_as_reference_steps_as_the_reference(context: ContextSource) -> None:
    config, seen = replace(CONFIG, context=context), []
    transcript = stream_as_reference(
        tiny_model(), marked_chat(), dialogue(), random_features(10), config, on_frame=seen.append
    )

    assert transcript.frames == by_hand(config, PROASSIST) == tuple(seen)
    # Of two assistant turns after a frame it knows the first; by our rules they would be one.
    differs = context is ContextSource.REFERENCE
    ours_without_updates = replace(OURS, feed_updates=False)
    assert (transcript.frames != by_hand(config, ours_without_updates)) == differs
    ours = stream_conversation(tiny_model(), marked_chat(), dialogue(), random_features(10), config)
    assert transcript.frames != ours.frames


def test_what_the_reference_is_measured_by_is_what_all_are() -> None:
    transcript = stream_as_reference(
        tiny_model(), marked_chat(), dialogue(), random_features(10), CONFIG
    )

    script = read_script(dialogue().without_updates())
    assert transcript.references == references(script)
    assert transcript.references[4].text == "well done now peel"
    assert not transcript.steps  # it tracks no state, so there is none to be right or wrong


def test_stream_as_reference_refuses_what_it_cannot_answer() -> None:
    model, chat, frames = tiny_model(), marked_chat(), random_features(10)

    with pytest.raises(FeatureError, match=r"train\.jsonl:1: .*10 frames, .*of 9 only"):
        stream_as_reference(model, chat, dialogue(), frames[:9], CONFIG)
    with pytest.raises(FeatureError, match=rf"train\.jsonl:1: features are 4 wide.*{VISION_SIZE}"):
        stream_as_reference(model, chat, dialogue(), frames[..., :4], CONFIG)
    refresh = replace(CONFIG, strategy=Strategy.DST_REFRESH)
    with pytest.raises(ConfigError, match=r"choose stream\.strategy=drop_middle"):
        stream_as_reference(model, chat, dialogue(), frames, refresh)
