"""The definition of streaming by itself, with a writer in place of the model."""

from __future__ import annotations

import pytest

from proassist_lit.data.conversation import (
    AssistantTurn,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import FORMATS
from proassist_lit.sequence.script import read_script, references
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import Transition, Update
from tests.fakes import dialogue, word_chat

CONFIG = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=8, max_dst_tokens=8)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("separator", [False, True])
def test_who_writes_what_training_showed_is_fed_what_training_showed(
    name: str, separator: bool
) -> None:
    turns = (
        SystemTurn(content="please help"),
        FramesTurn(start=0, end=2),
        DstTurn(updates=(Update("S1", Transition.COMPLETE), Update("S2", Transition.START))),
        FramesTurn(start=2, end=4),
        UserTurn(content="how many"),
        FramesTurn(start=4, end=5),
        AssistantTurn(content="one of two"),
        DstTurn(updates=(Update("S2", Transition.COMPLETE),)),
        FramesTurn(start=5, end=7),
    )
    script, chat = read_script(dialogue(turns)), word_chat(name, separator=separator)
    built = build_sequence(script, chat, num_tokens_per_img=1, max_seq_len=999).input_ids.tolist()
    stream = Stream(chat, script, CONFIG, fps=2.0, num_tokens_per_img=1, has_dst=True)

    fed: list[int] = []
    outputs = []
    for index, moment in enumerate(script.moments):
        fed += [*stream.begin(heard(script, index)), chat.image_id]
        stream.decide(float(moment.speak_label or 0), float(moment.dst_label or 0))
        while (ids := stream.feed()) is not None:
            fed += ids
            stream.take(built[len(fed)])
        outputs.append(stream.end())

    assert fed == built
    assert [(o.text, o.updates, o.state) for o in outputs] == [
        (r.text, r.updates, r.state) for r in references(script)
    ]
