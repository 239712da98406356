from __future__ import annotations

from dataclasses import replace

import pytest

from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.data.dialogue import write_dialogue
from proassist_lit.data.dialogue_config import UserType
from proassist_lit.data.timeline import Mistake, Step, Timeline
from tests.data.dialogues import CONFIG, plain_timeline, turns_of, words


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
