from __future__ import annotations

from dataclasses import replace

from proassist_lit.data import phrases
from proassist_lit.data.conversation import AssistantTurn, DstTurn, SystemTurn, UserTurn
from proassist_lit.data.dialogue import write_dialogue
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.timeline import Step
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.types import StepState, Transition, Update
from tests.data.dialogues import CONFIG, plain_timeline, turns_of, words


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


def test_progress_tells_what_was_done_by_then() -> None:
    conversation = write_dialogue(plain_timeline(), CONFIG, UserType.NO_TALK, seed=1)
    progress = [t.progress for t in turns_of(conversation, AssistantTurn)]

    assert "Nothing is done yet." in progress[0]
    assert "make a pie" in progress[0]
    assert "Done: wash the leek." in progress[2]
    assert "Under way: slice the plum with the knife." in progress[3]


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


def test_a_recording_that_begins_at_once_still_has_a_goal() -> None:
    timeline = plain_timeline(
        steps=(Step(id="S1", name="wash the leek", verb="wash", item="leek", start_s=0.0,
                    end_s=24.9),),
    )  # fmt: skip
    conversation = write_dialogue(timeline, CONFIG, UserType.TALK_MORE, seed=1)

    assert isinstance(conversation.turns[1], UserTurn)
    parse_record(record_to_json(conversation), where="x:1")
