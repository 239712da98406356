from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.examples import build_example_sequence
from proassist_lit.sequence.rules import DST_EXTENSION, OURS, PROASSIST, SequenceRules
from proassist_lit.sequence.script import read_script
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.sequence.splitting import split_conversation
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.types import IGNORE_INDEX, StepState, Transition, Update
from tests.fakes import dialogue, word_chat

CHAT = word_chat()


def long_talk(num_rounds: int = 6) -> Conversation:
    """Each round: 20 silent frames, an update, an utterance, a question, two frames, an answer."""
    turns: list[Turn] = [
        SystemTurn(content="please help"),
        UserTurn(content="make soup"),
        SystemTurn(content="Task knowledge: use the pan"),
    ]
    frame = 10
    for i in range(num_rounds):
        turns.append(FramesTurn(start=frame, end=frame + 20))
        if i < 2:
            transition = (Transition.START, Transition.COMPLETE)[i]
            turns.append(DstTurn(updates=(Update("S1", transition),)))
        turns.append(AssistantTurn(content=f"now {ORDER[i]}", progress=f"so far {ORDER[i]}"))
        turns.append(UserTurn(content="how many"))
        turns.append(FramesTurn(start=frame + 20, end=frame + 22))
        turns.append(AssistantTurn(content="one of two", progress=f"so far {ORDER[i]} good"))
        frame += 22
    return dialogue(tuple(turns))


ORDER = ("first", "one", "two", "three", "well", "done")


def split(method: SplitMethod, max_seq_len: int = 110, **changes: float) -> list[Conversation]:
    return split_conversation(
        long_talk(), CHAT, SplitConfig(method=method, **changes),
        num_tokens_per_img=1, max_seq_len=max_seq_len, seed=1,
    )  # fmt: skip


def tokens(part: Conversation, max_seq_len: int = 10**6) -> TokenSequence:
    return build_sequence(read_script(part), CHAT, num_tokens_per_img=1, max_seq_len=max_seq_len)


def utterances(parts: list[Conversation]) -> list[str]:
    return [
        span.content
        for part in parts
        for moment in read_script(part).moments
        for span in moment.spans
        if span.role is Role.ASSISTANT
    ]


SPLIT = [SplitMethod.DROP_ALL, SplitMethod.DST_REFRESH, SplitMethod.SUMMARIZE]


def test_what_fits_or_is_to_be_cut_stays_as_it_is() -> None:
    talk = long_talk()
    for method in SplitMethod:
        options = {"num_tokens_per_img": 1, "seed": 1}
        config = SplitConfig(method=method)
        assert split_conversation(talk, CHAT, config, max_seq_len=10**6, **options) == [talk]
    assert split(SplitMethod.CUT) == [talk]


@pytest.mark.parametrize("method", SPLIT)
def test_parts_fit_and_hold_every_utterance_once(method: SplitMethod) -> None:
    parts = split(method)

    assert len(parts) > 2
    assert utterances(parts) == utterances([long_talk()])
    for part in parts:
        whole = tokens(part)
        assert len(whole.input_ids) <= 110
        assert whole.frame_indices.tolist() == list(range(part.start_frame_idx, part.end_frame_idx))
    ends = [part.end_frame_idx for part in parts]
    assert all(part.start_frame_idx >= end for part, end in zip(parts[1:], ends, strict=False))
    assert len({part.id for part in parts}) == len(parts)


@pytest.mark.parametrize("method", SPLIT)
def test_parts_begin_with_the_prefix_of_a_stream_that_goes_on(method: SplitMethod) -> None:
    whole = read_script(long_talk())
    done = {"S1": StepState.COMPLETED, "S2": StepState.NOT_STARTED}
    first, *_, last = split(method)

    prefix = tokens(last).input_ids[: int(tokens(last).image_mask.nonzero()[0])].tolist()

    told, state = "Task knowledge: use the pan", done
    if method is SplitMethod.SUMMARIZE:
        summaries = [t.progress for t in first.turns if isinstance(t, AssistantTurn) and t.progress]
        assert summaries
        told = f"{last_summary(split(method)[-2])} {told}"
    if method is SplitMethod.DROP_ALL:
        state = whole.initial_state
    opening = prefix_ids(CHAT, whole, state, told)
    assert prefix[: len(opening)] == opening
    assert tokens(first).input_ids[:3].tolist() == tokens(long_talk()).input_ids[:3].tolist()


def last_summary(part: Conversation) -> str:
    query, answer = part.turns[-2:]
    assert isinstance(query, SystemTurn)
    assert isinstance(answer, AssistantTurn)
    assert query.content == SUMMARY_QUERY
    return answer.content


def test_a_summary_is_the_progress_of_the_last_utterance_and_learnt_without_a_decision() -> None:
    part = split(SplitMethod.SUMMARIZE)[0]
    said = [turn for turn in part.turns if isinstance(turn, AssistantTurn)]

    assert last_summary(part) == said[-2].progress
    sequence = tokens(part)
    assert int(sequence.speak_labels[-1]) == 1  # its own utterance's
    answer = [*CHAT.encode(last_summary(part)), CHAT.end_of_turn_id]
    assert sequence.labels[-len(answer) :].tolist() == answer
    assert sequence.labels[-len(answer) - 1] == IGNORE_INDEX
    assert not any(turn.content == SUMMARY_QUERY for turn in split(SplitMethod.DST_REFRESH)[0].turns
                   if isinstance(turn, SystemTurn))  # fmt: skip


def test_a_summary_that_is_too_long_is_passed_over() -> None:
    parts = split(SplitMethod.SUMMARIZE, max_summary_tokens=3)

    assert all(len(last_summary(part).split()) <= 3 for part in parts[:-1])
    assert any(len(last_summary(part).split()) > 3 for part in split(SplitMethod.SUMMARIZE)[:-1])


def test_later_parts_watch_some_seconds_before_their_first_turn() -> None:
    near = split(SplitMethod.DST_REFRESH, min_context_s=1.0, max_context_s=1.0)
    far = split(SplitMethod.DST_REFRESH, min_context_s=100.0, max_context_s=100.0)

    def first_turn(part: Conversation) -> int:
        return next(len(turn) for turn in part.turns if isinstance(turn, FramesTurn))

    assert all(first_turn(part) <= 3 for part in near[1:])
    assert [p.start_frame_idx for p in far[1:]] == [p.end_frame_idx for p in far[:-1]]
    assert split(SplitMethod.DST_REFRESH) == split(SplitMethod.DST_REFRESH)


def test_silence_longer_than_a_part_is_split_too_and_left_out() -> None:
    turns = (
        FramesTurn(start=0, end=10),
        AssistantTurn(content="good"),
        FramesTurn(start=10, end=300),
        AssistantTurn(content="well done"),
    )
    parts = split_conversation(
        dialogue(turns), CHAT, SplitConfig(min_context_s=200, max_context_s=200),
        num_tokens_per_img=1, max_seq_len=64, seed=1,
    )  # fmt: skip

    assert utterances(parts) == ["good", "well done"]
    assert parts[-1].end_frame_idx == 300


@pytest.mark.parametrize("method", SPLIT)
def test_updates_without_words_nearby_are_learnt_where_updates_are(method: SplitMethod) -> None:
    starts, ends = (DstTurn(updates=(Update("S1", t),)) for t in Transition)
    turns = (
        FramesTurn(start=0, end=10),
        AssistantTurn(content="good", progress="so far good"),
        FramesTurn(start=10, end=110),
        starts,
        FramesTurn(start=110, end=210),
        ends,
        FramesTurn(start=210, end=215),
        UserTurn(content="how many"),  # a part begins for it, too
        FramesTurn(start=215, end=310),
    )
    talk = dialogue(turns)

    def parts(rules: SequenceRules) -> list[Conversation]:
        return split_conversation(
            talk, CHAT, SplitConfig(method=method, min_context_s=5, max_context_s=5),
            num_tokens_per_img=1, max_seq_len=64, seed=1, rules=rules,
        )  # fmt: skip

    learnt = parts(OURS)
    assert updates(learnt) == updates([talk]) == [*starts.updates, *ends.updates]
    assert utterances(learnt) == ["good"]
    assert sum(part.num_frames for part in learnt) < talk.num_frames  # silence is left out still
    assert parts(replace(OURS, feed_updates=False)) == learnt[:1]


def updates(parts: list[Conversation]) -> list[Update]:
    moments = [moment for part in parts for moment in read_script(part).moments]
    return [update for moment in moments for update in moment.updates]


def test_parts_know_which_frames_are_supervised() -> None:
    turns = (*long_talk().turns, FramesTurn(start=142, end=300, supervised=False))
    parts = split_conversation(
        dialogue(turns), CHAT, SplitConfig(method=SplitMethod.DROP_ALL),
        num_tokens_per_img=1, max_seq_len=110, seed=1, every_frame=True,
    )  # fmt: skip

    moments = [moment for part in parts for moment in read_script(part).moments]
    assert [m.frame_idx for m in moments if not m.supervised] == list(range(142, 300))


@pytest.mark.parametrize("method", [m for m in SplitMethod if m is not SplitMethod.CUT])
def test_every_frame_is_kept_where_it_is_asked_for(method: SplitMethod) -> None:
    turns = (*long_talk().turns, FramesTurn(start=142, end=400))
    parts = split_conversation(
        dialogue(turns), CHAT, SplitConfig(method=method),
        num_tokens_per_img=1, max_seq_len=110, seed=1, every_frame=True,
    )  # fmt: skip

    frames = [i for part in parts for i in range(part.start_frame_idx, part.end_frame_idx)]
    assert frames == list(range(10, 400))
    assert not any(isinstance(turn, AssistantTurn) for turn in parts[-2].turns)
    assert utterances(parts) == utterances(split(method))
    assert all(len(tokens(part).input_ids) <= 110 for part in parts)


def test_a_frame_that_fits_nowhere_is_named() -> None:
    turns = (FramesTurn(start=4, end=5), AssistantTurn(content="good " * 80))
    with pytest.raises(ValueError, match=r"frame 4 .* does not fit into max_seq_len = 64"):
        split_conversation(
            dialogue(turns), CHAT, SplitConfig(), num_tokens_per_img=1, max_seq_len=64, seed=1
        )


def test_text_after_the_last_frame_stays() -> None:
    talk = replace(long_talk(), turns=(*long_talk().turns, UserTurn(content="wait")))
    parts = split_conversation(
        talk, CHAT, SplitConfig(), num_tokens_per_img=1, max_seq_len=110, seed=1
    )

    assert parts[-1].turns[-1] == UserTurn(content="wait")


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="must rise from 0"):
        SplitConfig(min_context_s=5, max_context_s=4)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        SplitConfig(max_summary_tokens=0)


@pytest.mark.parametrize("rules", [OURS, PROASSIST, DST_EXTENSION])
@pytest.mark.parametrize("method", [SplitMethod.DROP_ALL, SplitMethod.DST_REFRESH])
def test_parts_say_what_the_whole_says_whether_users_are_heard_or_not(
    method: SplitMethod, rules: SequenceRules
) -> None:
    turns: list[Turn] = []
    for frame in (0, 10, 20):
        turns += [
            FramesTurn(start=frame, end=frame + 10),
            AssistantTurn(content="good"),
            UserTurn(content="how many"),
            AssistantTurn(content="one of two"),
        ]
    talk = dialogue((*turns, FramesTurn(start=30, end=40)), steps=())
    said = {moment.frame_idx: moment.spans for moment in read_script(talk, rules).moments}
    num_split = 0

    for max_seq_len in range(20, 80):
        parts = split_conversation(
            talk, word_chat("dst_ext"), SplitConfig(method=method), num_tokens_per_img=1,
            max_seq_len=max_seq_len, seed=1, rules=rules, every_frame=True,
        )  # fmt: skip
        num_split += len(parts) > 1
        scripts = [read_script(part, rules) for part in parts]
        assert {m.frame_idx: m.spans for script in scripts for m in script.moments} == said
    assert num_split > 20


@pytest.mark.parametrize("method", SPLIT)
def test_without_updates_the_parts_are_those_of_a_record_that_tracks_no_state(
    method: SplitMethod,
) -> None:
    talk, rules = long_talk(), replace(OURS, feed_updates=False)
    # An update that alone would draw the beginning of a part towards it.
    turns = list(talk.turns)
    place = turns.index(FramesTurn(start=76, end=96))
    update = DstTurn(updates=(Update("S2", Transition.START),))
    turns[place : place + 1] = [FramesTurn(start=76, end=78), update, FramesTurn(start=78, end=96)]
    talk = replace(talk, turns=tuple(turns))
    config = SplitConfig(method=method, min_context_s=1, max_context_s=1)
    options = {"num_tokens_per_img": 1, "seed": 1, "rules": rules}

    for max_seq_len in range(70, 140):
        options["max_seq_len"] = max_seq_len
        parts = split_conversation(talk, CHAT, config, **options)

        expected = split_conversation(talk.without_updates(), CHAT, config, **options)
        assert [part.without_updates() for part in parts] == expected
        if method is SplitMethod.DROP_ALL:
            continue
        # The parts themselves still know what is relevant: as much as the whole.
        whole = dict(zip(range(10, talk.end_frame_idx), relevance(talk), strict=True))
        for part in parts:
            frames = range(part.start_frame_idx, part.end_frame_idx)
            assert relevance(part) == [whole[frame] for frame in frames]


def relevance(talk: Conversation) -> list[int]:
    return build_example_sequence(
        talk, CHAT, num_tokens_per_img=1, max_seq_len=10**6,
        rules=replace(OURS, feed_updates=False), relevance=True,
    ).relevance_labels.tolist()  # fmt: skip
