"""A session that steps as the reference does, with given words and special tokens in sight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from proassist_lit.data.conversation import FramesTurn, SystemTurn, Turn, UserTurn
from proassist_lit.sequence.chat import FORMATS, Chat, Role
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.reference import ReferenceSession
from proassist_lit.streaming.reference_context import ReferenceConfig, ReferenceText, ReferenceTrace
from proassist_lit.types import FrameOutput
from tests.fakes import ScriptedModel, Words, WordTokenizer, dialogue, random_features, tiny_model

UTTERANCES = ("first wash", "it is all good now", "wait")
CONFIG = ReferenceConfig(strategy="none", max_length=8)


class MarkedTokenizer(WordTokenizer):
    """Writes special tokens out, too, without spaces around them."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        if skip_special_tokens:
            return super().decode(ids, skip_special_tokens=True)
        text = " ".join(self.words[i] for i in ids)
        return re.sub(r" *(<\|\w+\|>|<image>) *", r"\1", text)


def chat(name: str = "compact", separator: str = "") -> Chat:
    return Chat(replace(FORMATS[name], separator=separator), MarkedTokenizer())


def speaking(formatter: Chat, utterances: Sequence[str] = UTTERANCES) -> ScriptedModel:
    """Decides by itself; what it writes is given, and opens as it should."""
    model = tiny_model(dst=False)
    opening = formatter.format.openings[Role.ASSISTANT]
    model.words = Words(formatter, [opening + words for words in utterances], ["nonsense"])
    return model


TURNS = (
    SystemTurn(content="please help"),
    SystemTurn(content="Task knowledge: wash. peel."),
    UserTurn(content="make soup"),
    FramesTurn(start=4, end=30),
)


def open_session(
    model: ScriptedModel, formatter: Chat, config: ReferenceConfig = CONFIG, *,
    turns: tuple[Turn, ...] = TURNS, k: int = 1,
) -> ReferenceSession:  # fmt: skip
    script = read_script(dialogue(turns, steps=()), PROASSIST)
    return ReferenceSession(model, formatter, script, config, fps=2.0, num_tokens_per_img=k,
                            start_frame_idx=4, name="kitchen")  # fmt: skip


def play(
    session: ReferenceSession, turns: tuple[Turn, ...] = TURNS, *, seed: int = 0
) -> tuple[list[FrameOutput], list[ReferenceTrace]]:
    script = read_script(dialogue(turns, steps=()), PROASSIST)
    outputs, traces = [], []
    for i, frame in enumerate(random_features(len(script.moments), seed=seed)):
        moment = script.moments[i]
        outputs.append(
            session.step(frame, heard(script, i), said=Said(moment.before, moment.spans))
        )
        assert session.last is not None
        traces.append(session.last)
    return outputs, traces


def ids_of(formatter: Chat, text: str) -> tuple[int, ...]:
    return tuple(ReferenceText(formatter).tokenize(text))
