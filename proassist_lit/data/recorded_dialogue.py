"""Writes the conversation that there really was over a timeline; no word is invented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proassist_lit.data import phrases
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.conversation_draft import ConversationDraft
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.timeline import Step, Timeline
from proassist_lit.types import Transition

RECORDED = "recorded"
"""Stands for the user type where words were really said."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Words that were really said.

    Attributes:
        time_s: when, seconds from the start of the recording.
        words: what was said.
        by_user: whether the user said it.
    """

    time_s: float
    words: str
    by_user: bool


def write_recorded_dialogue(
    timeline: Timeline, config: DialogueConfig, said: Iterable[Utterance], *, seed: int
) -> Conversation:
    """Write the conversation that there really was over ``timeline``.

    Args:
        timeline: what happened.
        config: frame rate and what the prompt holds.
        said: everything that was said.
        seed: seed of the prompt.
    """
    draft = ConversationDraft(timeline, config, RECORDED)
    moments: list[tuple[float, int, tuple[Step, Transition] | Utterance]] = [
        (utterance.time_s, 2, utterance) for utterance in said
    ]
    for step in timeline.performed():
        assert step.start_s is not None
        assert step.end_s is not None
        end_order = 0 if step.end_s > step.start_s else 1  # a step begins before it ends
        moments += [
            (step.start_s, 1, (step, Transition.START)),
            (step.end_s, end_order, (step, Transition.COMPLETE)),
        ]
    # At one time steps end, then begin, then somebody speaks of it.
    for time_s, _, what in sorted(moments, key=lambda m: m[:2]):
        if not isinstance(what, Utterance):
            draft.update(time_s, *what)
        elif what.by_user:
            draft.user_says(time_s, what.words)
        else:
            draft.assistant_says(time_s, what.words, RECORDED, ())
    rng = stable_rng("dialogue", seed, timeline.video_uid, RECORDED)
    return draft.conversation(phrases.pick(phrases.SYSTEM_PROMPTS, rng))
