"""Long conversations in parts: each fits, begins as a stream goes on, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.rules import OURS, PROASSIST, SequenceRules
from proassist_lit.sequence.script import KNOWLEDGE, Script, read_script
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.sequence.splitting import split_conversation
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.types import StepState, apply_updates
from tests.properties.strategies import Case, cases, examples

LONG = cases(min_turns=12, max_turns=40, tokens=(1, 5))
DROP_ALL, DST_REFRESH, SUMMARIZE = list(SplitMethod)[1:]
METHODS = st.sampled_from([SUMMARIZE, SUMMARIZE, DST_REFRESH, DST_REFRESH, DROP_ALL])


def split(
    case: Case,
    method: SplitMethod,
    max_seq_len: int,
    rules: SequenceRules = OURS,
    context_s: tuple[float, float] = (0.5, 2.0),
) -> list[Conversation]:
    least_s, most_s = context_s
    return split_conversation(
        case.conversation,
        case.chat,
        SplitConfig(
            method=method, min_context_s=least_s, max_context_s=most_s, max_summary_tokens=5
        ),
        num_tokens_per_img=case.num_tokens_per_img,
        max_seq_len=max_seq_len,
        seed=3,
        rules=rules,
    )


def some_parts(
    case: Case, method: SplitMethod, data: st.DataObject, rules: SequenceRules = OURS
) -> tuple[int, list[Conversation]]:
    """``max_seq_len`` and the parts for a length at which the conversation may have to be split."""
    whole = case.build()
    at = [*whole.decision_positions.tolist(), len(whole.input_ids)]
    # What the first frame needs, and a little more than any later one does: most can be split.
    least = at[0] + 1
    often = least + max(after - before for before, after in pairwise(at))
    limit = data.draw(
        st.integers(often, often + 40) | st.integers(least, len(whole.input_ids) + 1),
        label="max_seq_len",
    )
    context_s = data.draw(st.sampled_from([(0.0, 0.0), (0.5, 2.0)]), label="context_s")
    try:
        return limit, split(case, method, limit, rules, context_s)
    except ValueError as error:
        if "does not fit into max_seq_len" not in str(error):
            raise
        return limit, []


def said_at(conversation: Conversation) -> Iterator[tuple[Turn, int]]:
    """Turns of words with the frame each is said at: the one before it, or the one it waits for."""
    last, waits = conversation.start_frame_idx - 1, True
    for turn in conversation.turns:
        if isinstance(turn, FramesTurn):
            last, waits = turn.end - 1, False
        else:
            waits = waits or isinstance(turn, UserTurn | SystemTurn)
            yield turn, last + waits


def numbers(conversation: Conversation, kind: type[Turn] = AssistantTurn) -> list[int]:
    """Numbers of the utterances, or of other turns; a summary that was added has none."""
    said = [turn for turn in conversation.turns if isinstance(turn, kind)]
    return [turn.extra["number"] for turn in said if "number" in turn.extra]


def state_at(conversation: Conversation, frame_idx: int) -> dict[str, StepState]:
    state = dict(conversation.initial_state)
    for turn, at in said_at(conversation):
        if isinstance(turn, DstTurn) and at < frame_idx:
            state, _ = apply_updates(state, turn.updates)
    return state


def told_at(conversation: Conversation, frame_idx: int, summary: str) -> str:
    heard = [
        turn.content
        for i, (turn, at) in enumerate(said_at(conversation))
        if not (i == 0 and conversation.turns[0] is turn)  # the prompt, which is told anyway
        and isinstance(turn, SystemTurn)
        and at < frame_idx
        and turn.content.startswith(KNOWLEDGE)
    ]
    return " ".join(filter(None, [summary, *heard[:1]]))


@examples(40)
@given(case=LONG, method=METHODS, data=st.data())
def test_parts_fit_and_hold_every_utterance_and_update_once(
    case: Case, method: SplitMethod, data: st.DataObject
) -> None:
    if data.draw(st.booleans(), label="falls silent"):
        turns = case.conversation.turns
        late = [t for t in turns[len(turns) // 4 :] if not isinstance(t, AssistantTurn)]
        turns = (*turns[: len(turns) // 4], *late)
        case = replace(case, conversation=replace(case.conversation, turns=turns))
    _, parts = some_parts(case, method, data)
    for kind in (AssistantTurn, DstTurn):
        if parts:
            held = [n for part in parts for n in numbers(part, kind)]
            assert held == numbers(case.conversation, kind)
    for before, after in pairwise(parts):
        assert before.start_frame_idx < before.end_frame_idx <= after.start_frame_idx
        assert before.metadata["part"] < after.metadata["part"]
    assert len({part.id for part in parts}) == len(parts)


def test_nothing_of_a_part_is_cut() -> None:
    numbers_of_parts: list[int] = []

    @examples(100)
    @given(case=LONG, method=METHODS, data=st.data())
    def parts_fit(case: Case, method: SplitMethod, data: st.DataObject) -> None:
        limit, parts = some_parts(case, method, data)
        numbers_of_parts.append(len(parts))
        for part in parts:
            built = Case(
                conversation=part, chat=case.chat, num_tokens_per_img=case.num_tokens_per_img
            ).build()
            assert len(built.input_ids) <= limit
            frames = list(range(part.start_frame_idx, part.end_frame_idx))
            assert built.frame_indices.tolist() == frames

    parts_fit()
    # Otherwise this and the other properties say little of conversations that are split.
    assert sum(number > 1 for number in numbers_of_parts) >= len(numbers_of_parts) / 3


@examples(100)
@given(case=LONG, method=METHODS, data=st.data())
def test_parts_begin_with_the_prefix_of_a_stream_that_goes_on(
    case: Case, method: SplitMethod, data: st.DataObject
) -> None:
    _, parts = some_parts(case, method, data)
    conversation = case.conversation
    if parts == [conversation]:
        return
    script = read_script(conversation)
    summary = ""
    for part in parts:
        state = dict(conversation.initial_state)
        if method is not DROP_ALL:
            state = state_at(conversation, part.start_frame_idx)
        assert part.initial_state == state
        told = told_at(conversation, part.start_frame_idx, summary) if part.metadata["part"] else ""
        built = Case(
            conversation=part, chat=case.chat, num_tokens_per_img=case.num_tokens_per_img
        ).build()
        opening = prefix_ids(case.chat, script, state, told)
        before = text_ids(case.chat, read_script(part).moments[0].before)
        first = int(built.decision_positions[0]) + 1 - case.num_tokens_per_img
        assert built.input_ids[:first].tolist() == [*opening, *before]
        query, answer = part.turns[-2:] if len(part.turns) > 1 else (None, None)
        if isinstance(answer, AssistantTurn) and "number" not in answer.extra:
            assert isinstance(query, SystemTurn)
            assert method is SUMMARIZE
            assert query.content == SUMMARY_QUERY
            last = [t for t in part.turns if isinstance(t, AssistantTurn)][-2]
            assert answer.content == (last.progress or "").strip()
            summary = answer.content


def around(script: Script) -> dict[int, tuple]:
    """What is said before and after every frame, and the decisions at it."""
    return {
        moment.frame_idx: (moment.before, moment.spans, moment.speak_label, moment.dst_label)
        for moment in script.moments
    }


@examples(40)
@given(case=LONG, method=METHODS, rules=st.sampled_from([OURS, OURS, PROASSIST]), data=st.data())
def test_frames_of_parts_are_those_of_the_whole(
    case: Case, method: SplitMethod, rules: SequenceRules, data: st.DataObject
) -> None:
    whole = around(read_script(case.conversation, rules))
    _, parts = some_parts(case, method, data, rules)
    for part in parts:
        found = around(read_script(part, rules))
        last = part.end_frame_idx - 1
        for frame_idx, (before, spans, speak, dst) in found.items():
            assert (before, spans) == whole[frame_idx][:2]
            if frame_idx != last:  # what follows it is not there
                assert (speak, dst) == whole[frame_idx][2:]


@examples(40)
@given(case=LONG, limit=st.integers(1, 200))
def test_a_cut_conversation_stays_whole_where_its_first_frame_fits(case: Case, limit: int) -> None:
    try:
        case.build(limit)
    except ValueError:
        with pytest.raises(RecordError, match="does not fit into max_seq_len"):
            split(case, SplitMethod.CUT, limit)
    else:
        assert split(case, SplitMethod.CUT, limit) == [case.conversation]
