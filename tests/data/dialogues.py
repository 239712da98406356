"""A plain recording to write dialogues over, and what there is in them."""

from __future__ import annotations

import re
from dataclasses import replace

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.timeline import Mistake, Step, Timeline

CONFIG = DialogueConfig()


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
