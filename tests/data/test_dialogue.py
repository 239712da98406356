from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from proassist_lit.data import phrases
from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.data.dialogue import write_dialogue, write_dialogues
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.sources.toy import ToyConfig, make_toy
from proassist_lit.data.timeline import Mistake, Step, Timeline
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.baselines import utterance_intervals_s
from proassist_lit.types import StepState, Transition, Update

CONFIG = DialogueConfig()


@pytest.fixture(scope="module")
def timelines() -> list[Timeline]:
    return make_toy(ToyConfig(num_train=56, num_val=1, num_test=1))["train"]


@pytest.fixture(scope="module")
def conversations(timelines: list[Timeline]) -> list[Conversation]:
    return write_dialogues(timelines, CONFIG, seed=1, every_type=True)


def turns_of(conversation: Conversation, kind: type) -> list:
    return [turn for turn in conversation.turns if isinstance(turn, kind)]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def plain_timeline(**changes) -> Timeline:
    steps = (
        Step(id="S1", name="wash the leek", verb="wash", item="leek", start_s=5.2, end_s=9.0,
             mistakes=(Mistake(time_s=3.1, kind="wrong_item", description="the lime",
                               correction="wash the leek", keywords=("leek",)),)),
        Step(id="S2", name="peel the beet", verb="peel", item="beet"),
        Step(id="S3", name="slice the plum with the knife", verb="slice", item="plum",
             tool="knife", start_s=12.5, end_s=20.25),
    )  # fmt: skip
    base = Timeline(dataset="toy", video_uid="v", task="make a pie", duration_s=25.0, steps=steps)
    return replace(base, **changes)


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


def test_user_turn_precedes_the_frame_of_its_time() -> None:
    conversation = write_dialogue(plain_timeline(), CONFIG, UserType.TALK_MORE, seed=3)
    script = read_script(conversation)
    said = [(m.frame_idx, t) for m in script.moments for t in m.before]

    times = [t.time_s for t in turns_of(conversation, UserTurn)]
    assert len(said) == len(times)
    for (frame, _), time_s in zip(said, times, strict=True):
        assert abs(frame - time_s * 2) <= 1.01
    # A question is answered at the very frame that it precedes; a remark is not answered.
    for moment in script.moments:
        for text in moment.before:
            if text.content in phrases.REMARKS:
                assert not moment.utterance
            elif text.content in (*phrases.ASK_COUNT, *phrases.ASK_ITEM, *phrases.ASK_TOOL):
                assert moment.utterance


def test_dialogue_covers_every_act_of_a_recording() -> None:
    conversation = write_dialogue(plain_timeline(), CONFIG, UserType.NO_TALK, seed=1)
    script = read_script(conversation)
    refs = references(script)
    spoken = {m.frame_idx: m.utterance for m in script.moments if m.utterance}
    updates = {m.frame_idx: m.updates for m in script.moments if m.updates}

    assert updates == {
        11: (Update("S1", Transition.START),),
        18: (Update("S1", Transition.COMPLETE),),
        25: (Update("S3", Transition.START),),
        41: (Update("S3", Transition.COMPLETE),),
    }
    goal = next(frame for frame in spoken)
    assert goal < 7
    assert {"wash", "leek"} <= words(spoken[goal])  # the first instruction
    assert {"lime", "leek"} <= words(spoken[7])  # the correction, at 3.1 s
    assert {"peel", "beet"} <= words(spoken[18])  # confirms, and gives the next of the plan
    assert {"peel", "beet"} <= words(spoken[25])  # what was skipped
    assert set(spoken) == {goal, 7, 18, 25, 41}
    assert refs[-1].state == {
        "S1": StepState.COMPLETED, "S2": StepState.NOT_STARTED, "S3": StepState.COMPLETED
    }  # fmt: skip


def reminders(timeline: Timeline) -> list[tuple[float, set[str]]]:
    """When a correction is said, and those words in it that tell the steps apart."""
    conversation = write_dialogue(timeline, CONFIG, UserType.NO_TALK, seed=1)
    names = {step.item for step in timeline.steps}
    return [
        (turn.time_s, words(turn.content) & names)
        for turn in turns_of(conversation, AssistantTurn)
        if "correction" in turn.labels
    ]


def timeline_of(*steps: tuple[str, float | None, tuple[str, ...] | None]) -> Timeline:
    """Steps of 2 s in the order of the plan, from item, beginning, and what they need."""
    ids = {item: f"S{place}" for place, (item, _, _) in enumerate(steps, start=1)}
    made = [
        Step(
            id=ids[item], name=f"wash the {item}", verb="wash", item=item, start_s=start_s,
            end_s=None if start_s is None else start_s + 2.0,
            needs=None if needs is None else tuple(ids[n] for n in needs),
        )
        for item, start_s, needs in steps
    ]  # fmt: skip
    return plain_timeline(steps=tuple(made))


def test_a_step_that_begins_without_one_it_needs_brings_a_reminder_whatever_comes_later() -> None:
    never = timeline_of(("leek", 5.0, ()), ("beet", None, ("leek",)), ("plum", 9.0, ("beet",)))
    later = timeline_of(("leek", 5.0, ()), ("beet", 15.0, ("leek",)), ("plum", 9.0, ("beet",)))

    assert reminders(never) == reminders(later) == [(9.0, {"beet"})]


def test_steps_in_any_order_that_the_plan_allows_bring_no_reminder() -> None:
    assert not reminders(
        timeline_of(("leek", 15.0, ()), ("beet", None, ()), ("plum", 9.0, ()), ("kale", 5.0, None))
    )
    assert not reminders(timeline_of(("leek", 5.0, ()), ("beet", 5.0, ("leek",))))


def test_in_a_plan_that_is_a_list_only_what_is_never_done_brings_a_reminder() -> None:
    timeline = timeline_of(("leek", 15.0, None), ("beet", None, None), ("plum", 9.0, None))

    assert reminders(timeline) == [(9.0, {"beet"})]


@pytest.mark.parametrize("correction", ["first wash the leek", "wash the beet"])
def test_what_a_correction_of_the_step_tells_is_not_told_twice(correction: str) -> None:
    timeline = timeline_of(("leek", None, ()), ("beet", 9.0, ("leek",)))
    mistake = Mistake(time_s=9.2, kind="Order Error", description="an error",
                      correction=correction, keywords=("wash",))  # fmt: skip
    beet = replace(timeline.steps[1], mistakes=(mistake,))
    found = reminders(replace(timeline, steps=(timeline.steps[0], beet)))

    told = [(9.2, {"leek"})] if "leek" in correction else [(9.0, {"leek"}), (9.2, {"beet"})]
    assert found == told


def test_a_step_that_was_reminded_of_is_still_to_do() -> None:
    timeline = timeline_of(("leek", 15.0, ()), ("beet", None, ()), ("plum", 9.0, ("leek",)))
    conversation = write_dialogue(timeline, CONFIG, UserType.NO_TALK, seed=1)
    said = {t.time_s: t for t in turns_of(conversation, AssistantTurn)}

    assert "beet" in said[11.0].content  # those that were not reminded of come first
    assert "beet" in said[17.0].content

    timeline = timeline_of(("leek", 15.0, ()), ("plum", 9.0, ("leek",)))
    conversation = write_dialogue(timeline, CONFIG, UserType.NO_TALK, seed=1)
    said = {t.time_s: t for t in turns_of(conversation, AssistantTurn)}
    assert "leek" in said[11.0].content
    assert (said[11.0].labels, said[17.0].labels) == ("feedback,instruction", "feedback")


def test_nothing_is_said_of_what_is_still_to_come() -> None:
    steps = plain_timeline().steps
    later = {"S2": (12.0, 16.0), "S3": (17.0, 20.0)}
    first, second = (
        plain_timeline(
            steps=tuple(
                replace(s, start_s=times[s.id][0], end_s=times[s.id][1]) if s.id in times else s
                for s in steps
            )
        )
        for times in (later, {"S2": later["S3"], "S3": later["S2"]})
    )
    spoken = [
        [(t.time_s, t.content) for t in turns_of(c, AssistantTurn)]
        for c in (write_dialogue(t, CONFIG, UserType.NO_TALK, seed=1) for t in (first, second))
    ]
    before = [[(time_s, text) for time_s, text in said if time_s < 12.0] for said in spoken]

    assert len(before[0]) == 3  # the instruction, the correction, and what comes after S1
    assert before[0] == before[1]
    assert spoken[0] != spoken[1]


def test_labels_say_what_kind_of_utterance() -> None:
    conversation = write_dialogue(plain_timeline(), CONFIG, UserType.NO_TALK, seed=1)

    assert [t.labels for t in turns_of(conversation, AssistantTurn)] == [
        "instruction", "correction", "feedback,instruction", "correction", "feedback,instruction"
    ]  # fmt: skip


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


def test_progress_tells_what_was_done_by_then() -> None:
    conversation = write_dialogue(plain_timeline(), CONFIG, UserType.NO_TALK, seed=1)
    progress = [t.progress for t in turns_of(conversation, AssistantTurn)]

    assert "Nothing is done yet." in progress[0]
    assert "make a pie" in progress[0]
    assert "Done: wash the leek." in progress[2]
    assert "Under way: slice the plum with the knife." in progress[3]


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


def test_knowledge_and_steps_are_switches() -> None:
    with_both = write_dialogue(
        plain_timeline(), DialogueConfig(knowledge=True), UserType.NO_TALK, seed=1
    )
    without = write_dialogue(
        plain_timeline(), DialogueConfig(steps=False), UserType.NO_TALK, seed=1
    )

    knowledge = turns_of(with_both, SystemTurn)[1].content
    assert knowledge.startswith("Task knowledge: make a pie")
    assert "3. slice the plum with the knife" in knowledge
    assert with_both.steps
    assert not without.steps
    assert not turns_of(without, DstTurn)
    assert not without.initial_state
    assert len(turns_of(without, SystemTurn)) == 1
    texts = [t.content for t in turns_of(without, AssistantTurn)]
    assert texts == [t.content for t in turns_of(with_both, AssistantTurn)]


def test_frames_cover_the_recording(conversations: list[Conversation]) -> None:
    for conversation in conversations[:20]:
        frames = [i for t in turns_of(conversation, FramesTurn) for i in range(t.start, t.end)]
        assert frames == list(range(conversation.end_frame_idx))


def test_a_recording_that_begins_at_once_still_has_a_goal() -> None:
    timeline = plain_timeline(
        steps=(Step(id="S1", name="wash the leek", verb="wash", item="leek", start_s=0.0,
                    end_s=24.9),),
    )  # fmt: skip
    conversation = write_dialogue(timeline, CONFIG, UserType.TALK_MORE, seed=1)

    assert isinstance(conversation.turns[1], UserTurn)
    parse_record(record_to_json(conversation), where="x:1")
