"""Every difference from the reference systems, by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.data.sources.dst import row_to_conversation
from proassist_lit.sequence.builder import build_sequence, text_ids
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.rules import (
    DST_EXTENSION,
    OURS,
    PROASSIST,
    SequenceRules,
    rules_for,
)
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import Script, read_script
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.context import summary_query
from proassist_lit.types import Transition, Update
from tests.data.dst_rows import EVENTS
from tests.fakes import DIALOGUE, dialogue, word_chat

UPDATE = DstTurn(updates=(Update("S1", Transition.START),))


def read(*turns: Turn, metadata: dict | None = None, **rules: bool) -> Script:
    talk = dialogue(turns, metadata=metadata)
    return read_script(talk, replace(OURS, **rules))


def speak(script: Script) -> list[int | None]:
    return [moment.speak_label for moment in script.moments]


def test_utterances_of_a_frame_are_one_span_or_stand_alone() -> None:
    turns = (
        FramesTurn(start=0, end=2),
        AssistantTurn(content="well done", keywords=("done",)),
        UPDATE,
        AssistantTurn(content="now peel", keywords=("peel",)),
        FramesTurn(start=2, end=3),
    )

    def said(script: Script) -> list[str]:
        return [span.content for span in script.moments[1].spans]

    assert said(read(*turns)) == ["S1->start", "well done now peel"]
    alone = read(*turns, join_utterances=False)
    assert said(alone) == ["S1->start", "well done", "now peel"]
    assert speak(alone) == [0, 1, None]
    assert references(alone)[1].text == "well done now peel"


def test_updates_of_a_frame_are_one_span_or_have_one_each() -> None:
    both = DstTurn(updates=(*UPDATE.updates, Update("S2", Transition.START)))
    turns = (FramesTurn(start=0, end=1), both, FramesTurn(start=1, end=2), UserTurn(content="wait"))
    turns = (*turns, both, FramesTurn(start=2, end=3))

    def written(script: Script) -> list[list[str]]:
        spans = (script.moments[0].spans, script.moments[2].before)
        return [[text.content for text in texts if text.updates] for texts in spans]

    assert written(read(*turns)) == [["S1->start;S2->start"]] * 2
    alone = read(*turns, join_updates=False)
    assert written(alone) == [["S1->start", "S2->start"]] * 2
    assert alone.moments[0].updates == both.updates
    assert references(alone) == references(read(*turns))


def test_adjoining_frames_turns_are_one_or_two() -> None:
    turns = (FramesTurn(start=0, end=2), FramesTurn(start=2, end=4))
    chat = word_chat(separator=True)

    def length(script: Script) -> int:
        made = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=99)
        return len(made.input_ids)

    assert speak(read(*turns)) == [0, 0, 0, None]
    assert speak(read(*turns, join_frames=False)) == [0, None, 0, None]
    assert length(read(*turns)) == length(read(*turns, join_frames=False)) + 1


def test_a_summary_s_frame_is_neither_or_spoken_at() -> None:
    turns = (
        FramesTurn(start=0, end=2),
        AssistantTurn(content="well done"),
        SystemTurn(content=SUMMARY_QUERY),
        FramesTurn(start=2, end=3),
        AssistantTurn(content="so far good"),
    )
    script = read(*turns)

    assert speak(script) == [0, 1, None]
    assert [m.dst_label for m in script.moments] == [0, 0, None]
    assert [reference.text for reference in references(script)] == ["", "well done", ""]
    assert speak(read(*turns, decide_summaries=True, ask_behind_frames=False)) == [0, 1, 1]


def test_a_recorded_summary_is_learnt_as_streams_ask_for_one() -> None:
    chat = word_chat("chatml")
    script = read(
        FramesTurn(start=0, end=2), AssistantTurn(content="well done"),
        SystemTurn(content=SUMMARY_QUERY), FramesTurn(start=2, end=3), UPDATE,
        AssistantTurn(content="so far good"), FramesTurn(start=3, end=4),
    )  # fmt: skip
    sequence = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=99)
    asked, after = (int(sequence.decision_positions[frame]) for frame in (2, 3))

    update = [*text_ids(chat, script.moments[2].spans)]
    answer = [*chat.encode("so far good"), chat.end_of_turn_id, *chat.after_turn_ids]
    between = sequence.input_ids[asked + 1 : after].tolist()
    assert between == [*update, *summary_query(chat), *answer]
    assert [heard(script, index) for index in range(4)] == [()] * 4  # streams ask by themselves
    assert [reference.is_summary for reference in references(script)] == [False, False, True, False]


def test_an_update_may_come_between_request_and_summary() -> None:
    script = read_script(dialogue((FramesTurn(start=0, end=1), SystemTurn(content=SUMMARY_QUERY),
                                   FramesTurn(start=1, end=2), UPDATE,
                                   AssistantTurn(content="so far good"))))  # fmt: skip

    assert [reference.text for reference in references(script)] == ["", ""]


def test_a_request_is_not_heard_that_is_answered_behind_an_update() -> None:
    frames, asks = FramesTurn(start=0, end=1), SystemTurn(content=SUMMARY_QUERY)
    after, answer = FramesTurn(start=1, end=2), AssistantTurn(content="so far good")

    script = read(frames, asks, UPDATE, answer, after)
    assert [text.role for text in script.moments[1].before] == ["system", "dst", "assistant"]
    assert heard(script, 1) == ()
    for others in ((asks, UPDATE), (asks, UPDATE, UserTurn(content="wait"), answer)):
        words = [text.content for text in heard(read(frames, *others, after), 1)]
        assert words[0] == SUMMARY_QUERY  # nobody answers


def test_a_system_turn_that_asks_for_no_summary_makes_none() -> None:
    script = read(SystemTurn(content="please help"), FramesTurn(start=0, end=1),
                  SystemTurn(content="wait"), FramesTurn(start=1, end=2),
                  AssistantTurn(content="good"))  # fmt: skip

    assert speak(script) == [None, 1]
    assert references(script)[1].text == "good"


def test_rows_of_summaries_only_have_no_silent_frames() -> None:
    turns = (FramesTurn(start=0, end=2), AssistantTurn(content="good"), FramesTurn(start=2, end=4))

    assert speak(read(*turns, metadata={"summary_only": True})) == [None, 1, None, None]


def test_every_frame_can_be_labelled_without_steps_too() -> None:
    talk = dialogue((FramesTurn(start=0, end=2), UserTurn(content="wait"),
                     FramesTurn(start=2, end=3)), steps=())  # fmt: skip

    assert [m.dst_label for m in read_script(talk).moments] == [None, None, None]
    labelled = read_script(talk, replace(OURS, label_every_frame=True))
    assert speak(labelled) == [0, 0, 0]
    assert [m.dst_label for m in labelled.moments] == [0, 0, 0]


def test_flags_of_the_source_can_win_over_roles() -> None:
    turns = (
        FramesTurn(start=0, end=1),
        AssistantTurn(content="good", extra={"speaking": 0, "dst_update": 1}),
        FramesTurn(start=1, end=2),
        AssistantTurn(content="good"),
        AssistantTurn(content="wait", extra={"speaking": 0}),
    )
    script = read(*turns, obey_flags=True)

    assert [(m.speak_label, m.dst_label) for m in script.moments] == [(0, 1), (1, 0)]
    assert speak(read(*turns)) == [1, 1]


def test_what_the_user_says_can_be_left_out() -> None:
    turns = (FramesTurn(start=0, end=1), UserTurn(content="wait"), FramesTurn(start=1, end=2))

    assert not read(*turns, feed_user_text=False).moments[1].before
    assert read(*turns).moments[1].before


def test_empty_utterances_are_written_or_only_labelled() -> None:
    turns = (FramesTurn(start=0, end=1), AssistantTurn(content=""), FramesTurn(start=1, end=2))

    assert [s.content for s in read(*turns).moments[0].spans] == [""]
    unwritten = read(*turns, write_empty_utterances=False, obey_flags=True)
    assert not unwritten.moments[0].spans
    assert speak(unwritten) == [1, None]


def talk_with_turns(*lengths: int) -> Conversation:
    turns: list[Turn] = []
    start = 0
    for length in lengths:
        turns += [FramesTurn(start=start, end=start + length), AssistantTurn(content="good")]
        start += length
    return dialogue(tuple(turns))


@pytest.mark.parametrize(("rho", "ours", "theirs"), [(0.0, 0, 3), (0.1, 1, 3), (1.0, 14, 14)])
def test_silent_frames_are_counted_by_record_or_by_turn(rho: float, ours: int, theirs: int) -> None:
    talk = talk_with_turns(1, 5, 10, 2)  # 0 + 4 + 9 + 1 silent frames

    def kept(rules: SequenceRules) -> int:
        script = read_script(talk, rules)
        sequence = build_sequence(script, word_chat(), num_tokens_per_img=1, max_seq_len=999)
        decisions = sample_decisions(
            sequence, rho=rho, turn_frames=None, seed=1, epoch=0, record_id="x", rules=rules
        )
        return int(decisions.neg_frame_mask.sum())

    assert kept(OURS) == ours
    assert kept(replace(PROASSIST, join_utterances=True)) == theirs


def test_frames_with_an_event_can_always_be_kept() -> None:
    sequence = build_sequence(
        read_script(dialogue(DIALOGUE)), word_chat(), num_tokens_per_img=1, max_seq_len=999
    )
    sequence = replace(sequence, has_event=torch.arange(len(sequence.frame_indices)) == 2)

    def silent(rules: SequenceRules) -> list[int]:
        decisions = sample_decisions(
            sequence, rho=0.0, turn_frames=None, seed=1, epoch=0, record_id="x", rules=rules
        )
        mask = decisions.neg_frame_mask[sequence.decision_positions]
        return [i for i in mask.nonzero().flatten().tolist() if sequence.dst_update_labels[i] == 0]

    assert silent(OURS) == []
    assert silent(DST_EXTENSION) == [2]


def test_steps_are_told_where_a_row_or_a_later_part_of_it_begins() -> None:
    events = row_to_conversation(EVENTS, "x")  # the first at the first frame
    later = replace(events, start_frame_idx=11, turns=(FramesTurn(start=11, end=13),))
    part = replace(later, metadata={**later.metadata, "part": 1})
    told = [bool(read_script(c, DST_EXTENSION).steps) for c in (events, later, part)]
    assert told == [True, False, True]
    assert all(read_script(c, OURS).steps for c in (events, later, part))


@pytest.mark.parametrize(
    "source",
    [
        {"url": "https://example.org/soup", "turns": 34},
        {"turns": ["written by hand"]},
        {"format": "webm", "row": None, "turns": [3]},
        "a wheel",
    ],
)
@pytest.mark.parametrize("rules", [OURS, PROASSIST, DST_EXTENSION])
def test_what_metadata_say_of_another_source_is_passed_over(
    source: object, rules: SequenceRules
) -> None:
    said = replace(dialogue(), metadata={"source": source})
    assert read_script(said, rules) == read_script(dialogue(), rules)


@pytest.mark.parametrize(
    "rules", [OURS, PROASSIST, DST_EXTENSION], ids=["ours", "proassist", "dst"]
)
def test_without_updates_a_record_reads_as_one_that_tracks_no_state(rules: SequenceRules) -> None:
    turns = (
        *DIALOGUE,
        UserTurn(content="wait"),
        UPDATE,
        FramesTurn(start=20, end=22),
        UPDATE,
        FramesTurn(start=22, end=24, supervised=False),
        UPDATE,
    )
    stateless = [turn for turn in turns if not isinstance(turn, DstTurn)]
    first = stateless.index(FramesTurn(start=11, end=14))
    stateless[first : first + 2] = [FramesTurn(start=11, end=15)]  # only an update parted them
    rules = replace(rules, feed_updates=False)

    script = read_script(dialogue(turns), rules)

    assert dialogue(turns).without_updates() == dialogue(stateless, steps=())
    assert script == read_script(dialogue(stateless, steps=()), rules)
    assert not any(text.updates for m in script.moments for text in (*m.before, *m.spans))
    assert not script.steps
    assert {m.dst_label for m in script.moments} == {None}
    assert not any(reference.updates or reference.state for reference in references(script))


def test_a_model_that_decides_on_no_updates_is_fed_none() -> None:
    for compat, chat in ((False, "compact"), (True, "dst_ext"), (True, "compact")):
        rules = rules_for(compat, chat)
        assert rules_for(compat, chat, dst=False) == replace(rules, feed_updates=False)
        assert rules.feed_updates == (rules is not PROASSIST)
