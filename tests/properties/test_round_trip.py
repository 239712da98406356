"""Records: what is written is read back equal."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.conversation import AssistantTurn, Conversation, Turn, UserTurn
from proassist_lit.data.record_checks import load_json
from proassist_lit.data.records import parse_record, record_to_json
from tests.properties.strategies import conversations, examples

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
EXTRA = st.dictionaries(TEXT.map(lambda key: f"own_{key}"), JSON, max_size=2)


@st.composite
def rich(draw: st.DrawFn) -> Conversation:
    """A record with any text, times, labels and unknown keys."""
    conversation = draw(conversations())
    time_s = 0.0
    turns: list[Turn] = []
    for turn in conversation.turns:
        if draw(st.booleans()):
            turn = replace(turn, extra=draw(EXTRA))
        if isinstance(turn, UserTurn | AssistantTurn):
            turn = replace(turn, content=draw(TEXT))
            if draw(st.booleans()):
                time_s += draw(st.floats(0, 1e6))
                turn = replace(turn, time_s=time_s)
        if isinstance(turn, AssistantTurn):
            turn = replace(
                turn,
                labels=draw(st.none() | st.text(st.characters(codec="utf-8"), max_size=5)),
                keywords=tuple(draw(st.lists(TEXT, max_size=3))),
            )
        turns.append(turn)
    return replace(
        conversation,
        turns=tuple(turns),
        dataset=draw(TEXT),
        fps=draw(st.floats(1e-3, 1e3) | st.integers(1, 60)),
        clip_idx=draw(st.integers(0, 2**31 - 1)),
        num_tokens_per_img=draw(st.sampled_from([1, 5, 10])),
        metadata=draw(EXTRA),
        extra=draw(EXTRA),
    )


@examples(40)
@given(conversation=rich())
def test_a_record_reads_back_equal(conversation: Conversation) -> None:
    written = record_to_json(conversation)
    assert parse_record(written, where=conversation.source) == conversation
    line = json.dumps(written, allow_nan=False)
    assert "\n" not in line
    again = parse_record(load_json(line, "train.jsonl:1"), where=conversation.source)
    assert again == conversation
    assert record_to_json(again) == written
