from __future__ import annotations

from dataclasses import replace

from proassist_lit.data.conversation import (
    AssistantTurn,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.ground_truth import references, relevance_labels
from proassist_lit.sequence.script import Text, read_script
from proassist_lit.sequence.system_turn import state_text
from proassist_lit.types import StepState, Transition, Update
from tests.fakes import STEPS, dialogue


def test_script_joins_turns_of_a_frame_and_labels_every_frame() -> None:
    script = read_script(dialogue())

    assert script.prompt == "please help"
    assert [m.frame_idx for m in script.moments] == list(range(10, 20))
    assert [m.speak_label for m in script.moments] == [1, 0, 0, 0, 1, 0, None, 1, 0, None]
    assert [m.dst_label for m in script.moments] == [0, 0, 0, 1, 1, 0, None, 0, 0, None]
    assert script.moments[4].utterance == "well done now peel"
    assert script.moments[4].spans[1].keywords == ("peel",)
    assert script.moments[4].updates == (
        Update("S1", Transition.COMPLETE),
        Update("S2", Transition.START),
    )
    assert script.moments[0].before == (Text(role=Role.USER, content="make soup"),)
    assert script.moments[7].before == (Text(role=Role.USER, content="how many"),)


def test_silence_that_nobody_vouches_for_is_no_label() -> None:
    turns = (
        FramesTurn(start=0, end=2),
        FramesTurn(start=2, end=5, supervised=False),
        AssistantTurn(content="good"),
        FramesTurn(start=5, end=7, supervised=False),
        FramesTurn(start=7, end=9),
    )
    script = read_script(dialogue(turns))

    assert [m.speak_label for m in script.moments] == [0, 0, None, None, 1, None, None, 0, None]
    assert [m.dst_label for m in script.moments] == [0, 0, *[None] * 5, 0, None]
    assert [r.supervised for r in references(script)] == [True] * 2 + [False] * 5 + [True] * 2


def test_a_frame_with_one_span_is_no_for_the_other_head_whatever_follows() -> None:
    update = DstTurn(updates=(Update("S1", Transition.START),))
    turns = (
        FramesTurn(start=0, end=1),
        update,
        UserTurn(content="wait"),
        FramesTurn(start=1, end=2),
        AssistantTurn(content="good"),
        UserTurn(content="wait"),
        FramesTurn(start=2, end=3),
        update,
    )
    script = read_script(dialogue(turns))

    assert [m.speak_label for m in script.moments] == [0, 1, 0]
    assert [m.dst_label for m in script.moments] == [1, 0, 1]


def test_only_the_first_system_turn_is_the_prompt() -> None:
    turns = (
        SystemTurn(content="please help"),
        SystemTurn(content="use the knife"),
        FramesTurn(start=0, end=1),
        SystemTurn(content="wait"),
    )
    script = read_script(dialogue(turns))

    assert script.prompt == "please help"
    assert script.moments[0].before == (Text(role=Role.SYSTEM, content="use the knife"),)
    assert script.after == (Text(role=Role.SYSTEM, content="wait"),)


def test_how_frames_turns_are_split_does_not_matter() -> None:
    one = (FramesTurn(start=0, end=4), AssistantTurn(content="wait"), FramesTurn(start=4, end=6))
    many = (
        *(FramesTurn(start=i, end=i + 1) for i in range(4)),
        AssistantTurn(content="wait"),
        *(FramesTurn(start=i, end=i + 1) for i in (4, 5)),
    )

    assert read_script(dialogue(one)) == read_script(dialogue(many))


def test_references_follow_the_state() -> None:
    refs = references(read_script(dialogue()))

    assert [r.text for r in refs if r.text] == ["first wash", "well done now peel", "one of two"]
    assert [r.state["S1"] for r in refs] == [
        *[StepState.NOT_STARTED] * 3,
        StepState.IN_PROGRESS,
        *[StepState.COMPLETED] * 6,
    ]
    assert [r.state["S2"] for r in refs] == [
        *[StepState.NOT_STARTED] * 4,
        *[StepState.IN_PROGRESS] * 6,
    ]
    assert refs[7].keywords == ("one",)


def test_references_keep_what_does_not_follow_a_frame() -> None:
    turns = (
        SystemTurn(content="please help"),
        AssistantTurn(content="first wash", keywords=("wash",)),
        FramesTurn(start=0, end=2),
        UserTurn(content="how many"),
        DstTurn(updates=(Update("S1", Transition.START),)),
        AssistantTurn(content="one of two", keywords=("one",)),
        FramesTurn(start=2, end=3),
        UserTurn(content="wait"),
        AssistantTurn(content="well done"),
    )
    refs = references(read_script(dialogue(turns)))

    assert [r.text for r in refs] == ["first wash", "one of two", "well done"]
    assert [r.keywords for r in refs] == [("wash",), ("one",), ()]
    assert refs[1].updates == (Update("S1", Transition.START),)
    assert [r.state["S1"] for r in refs] == [
        StepState.NOT_STARTED,
        StepState.IN_PROGRESS,
        StepState.IN_PROGRESS,
    ]
    assert [r.speak_label for r in refs] == [0, None, None]


def test_state_text_names_what_is_under_way_and_done() -> None:
    state = {"S1": StepState.COMPLETED, "S2": StepState.IN_PROGRESS}

    assert state_text(STEPS, state) == "Steps: S1: wash (completed). S2: peel (in progress)."
    assert state_text(STEPS, {}) == "Steps: S1: wash. S2: peel."


def test_frames_are_relevant_while_a_step_is_under_way() -> None:
    start, complete = (Update("S1", transition) for transition in Transition)
    turns = (
        FramesTurn(start=0, end=2),
        DstTurn(updates=(start,)),  # at frame 1
        FramesTurn(start=2, end=4),
        DstTurn(updates=(complete,)),  # at frame 3
        FramesTurn(start=4, end=6),
        UserTurn(content="wait"),
        DstTurn(updates=(Update("S2", Transition.START),)),  # after no frame: before frame 6
        FramesTurn(start=6, end=7),
    )

    assert relevance_labels(read_script(dialogue(turns))) == [0, 1, 1, 1, 0, 0, 1]
    at_once = (turns[0], DstTurn(updates=(start, complete)), turns[2])
    assert relevance_labels(read_script(dialogue(at_once))) == [0, 1, 0, 0]
    begun = replace(dialogue(turns[:1]), initial_state={"S1": StepState.IN_PROGRESS})
    assert relevance_labels(read_script(begun)) == [1, 1]
    assert relevance_labels(read_script(dialogue(turns[:1], steps=()))) == [None, None]


def test_frames_of_which_nobody_knows_are_relevant_while_a_step_is_or_unknown() -> None:
    start, complete = (DstTurn(updates=(Update("S1", transition),)) for transition in Transition)
    turns = (
        FramesTurn(start=0, end=1),
        FramesTurn(start=1, end=3, supervised=False),
        start,  # at frame 2
        FramesTurn(start=3, end=4, supervised=False),
        FramesTurn(start=4, end=5, supervised=False),
        complete,  # at frame 4
        FramesTurn(start=5, end=6, supervised=False),
        FramesTurn(start=6, end=7),
    )
    assert relevance_labels(read_script(dialogue(turns))) == [0, None, 1, 1, 1, None, 0]
