from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from proassist_lit.data import phrases
from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    UserTurn,
)
from proassist_lit.data.dialogue import write_dialogue, write_dialogues
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.sources.toy import ToyConfig, make_toy
from proassist_lit.data.timeline import Timeline
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.baselines import utterance_intervals_s
from proassist_lit.types import StepState, Transition
from tests.data.dialogues import CONFIG, turns_of, words


@pytest.fixture(scope="module")
def timelines() -> list[Timeline]:
    return make_toy(ToyConfig(num_train=56, num_val=1, num_test=1))["train"]


@pytest.fixture(scope="module")
def conversations(timelines: list[Timeline]) -> list[Conversation]:
    return write_dialogues(timelines, CONFIG, seed=1, every_type=True)


def test_same_seed_gives_the_same_dialogues(
    timelines: list[Timeline], conversations: list[Conversation]
) -> None:
    again = write_dialogues(timelines, CONFIG, seed=1, every_type=True)
    assert again == conversations
    assert write_dialogues(timelines, CONFIG, seed=2, every_type=True) != conversations


def test_one_conversation_per_user_type_or_per_recording(
    timelines: list[Timeline], conversations: list[Conversation]
) -> None:
    assert len(conversations) == 3 * len(timelines)
    assert len({c.id for c in conversations}) == len(conversations)
    single = write_dialogues(timelines, CONFIG, seed=1, every_type=False)
    assert [c.video_uid for c in single] == [t.video_uid for t in timelines]
    assert {c.metadata["user_type"] for c in single} == {t.value for t in UserType}
    assert set(map(str, single)) <= set(map(str, conversations))


def test_every_dialogue_is_a_record_that_can_be_read(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        raw = json.loads(json.dumps(record_to_json(conversation)))
        read = parse_record(raw, where="train.jsonl:1")
        assert replace(read, source="") == conversation


def test_utterances_are_far_apart_and_irregular(conversations: list[Conversation]) -> None:
    for user_type in UserType:
        gaps = utterance_intervals_s(
            [c for c in conversations if c.metadata["user_type"] == user_type.value]
        )
        low, high = np.percentile(gaps, [10, 90])
        assert gaps.mean() >= 10.0
        assert high / low >= 3.0


def test_user_types_differ_in_how_much_users_say(conversations: list[Conversation]) -> None:
    said = {
        user_type: np.mean(
            [
                len(turns_of(c, UserTurn))
                for c in conversations
                if c.metadata["user_type"] == user_type.value
            ]
        )
        for user_type in UserType
    }

    assert said[UserType.NO_TALK] == 1  # the goal
    assert said[UserType.NO_TALK] + 0.8 < said[UserType.TALK_SOME]
    assert said[UserType.TALK_SOME] + 0.8 < said[UserType.TALK_MORE]


def test_keywords_are_words_of_their_utterance(conversations: list[Conversation]) -> None:
    num_keywords = 0
    for conversation in conversations:
        for turn in turns_of(conversation, AssistantTurn):
            for keyword in turn.keywords:
                num_keywords += 1
                assert words(keyword) <= words(turn.content), turn
    assert num_keywords > 10 * len(conversations) / 3


@pytest.mark.parametrize("fps", [1.0, 2.0, 3.7])
def test_turns_stand_after_their_frame(timelines: list[Timeline], fps: float) -> None:
    config = DialogueConfig(fps=fps)
    for timeline in timelines[:6]:
        script = read_script(write_dialogue(timeline, config, UserType.TALK_MORE, seed=1))
        started = {
            update.id: moment.frame_idx
            for moment in script.moments
            for update in moment.updates
            if update.transition is Transition.START
        }
        completed = {
            update.id: moment.frame_idx
            for moment in script.moments
            for update in moment.updates
            if update.transition is Transition.COMPLETE
        }
        for step in timeline.steps:
            for frame, time_s in (
                (started[step.id], step.start_s),
                (completed[step.id], step.end_s),
            ):
                assert frame / fps >= time_s - 1e-6
                assert (frame - 1) / fps < time_s


def test_instructions_quote_the_list_of_steps(conversations: list[Conversation]) -> None:
    """What stands in the prompt in other words could hardly be quoted from it."""
    quoted = 0
    for conversation in conversations:
        names = [step.name for step in conversation.steps]
        for turn in turns_of(conversation, AssistantTurn):
            if "instruction" in turn.labels:
                quoted += 1
                assert any(name in turn.content for name in names), turn.content
    assert quoted > 100


def test_answers_are_true(conversations: list[Conversation], timelines: list[Timeline]) -> None:
    by_uid = {t.video_uid: t for t in timelines}
    seen = set()
    for conversation in conversations:
        state_at: dict[str, StepState] = dict(conversation.initial_state)
        question = ""
        for turn in conversation.turns:
            if isinstance(turn, UserTurn):
                question = turn.content
            elif isinstance(turn, DstTurn):
                for update in turn.updates:
                    done = update.transition is Transition.COMPLETE
                    state_at[update.id] = StepState.COMPLETED if done else StepState.IN_PROGRESS
            elif isinstance(turn, AssistantTurn) and turn.labels == "answer":
                steps = by_uid[conversation.video_uid].steps
                current = (
                    s
                    for wanted in (StepState.IN_PROGRESS, StepState.NOT_STARTED)
                    for s in steps
                    if state_at[s.id] is wanted
                )
                now = next(current, None)  # None: everything is done
                num_done = sum(s is StepState.COMPLETED for s in state_at.values())
                if question in phrases.ASK_COUNT:
                    assert {str(num_done), str(len(steps))} <= words(turn.content)
                elif question in phrases.ASK_TOOL:
                    assert now.tool in words(turn.content)
                else:
                    assert question in phrases.ASK_ITEM
                    assert now.item in words(turn.content)
                seen.add(question)
    assert len(seen) > 9


def test_frames_cover_the_recording(conversations: list[Conversation]) -> None:
    for conversation in conversations[:20]:
        frames = [i for t in turns_of(conversation, FramesTurn) for i in range(t.start, t.end)]
        assert frames == list(range(conversation.end_frame_idx))
