"""Requests for a summary of the progress that a recorded conversation holds, and their answers."""

from __future__ import annotations

from collections.abc import Sequence

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
)
from proassist_lit.sequence.rules import OURS, SequenceRules

SUMMARY_QUERY = "Please summarize the progress."
"""What a system turn says to ask for a summary of the progress (ProAssist's words)."""


def written_turns(conversation: Conversation, rules: SequenceRules = OURS) -> Sequence[Turn]:
    """The turns of ``conversation`` in the order in which sequences hold them.

    By our rules a request for a summary that stands before a single frame, whose summary follows,
    stands behind the frame: streams ask there, and show no frame in between.
    """
    turns = conversation.turns
    if not rules.ask_behind_frames:
        return turns
    written = list(turns)
    for number in range(1, len(turns) - 2):  # the first one may be the prompt
        request, frame, answer = turns[number : number + 3]
        asks = isinstance(request, SystemTurn) and request.content.strip() == SUMMARY_QUERY
        if not (asks and isinstance(frame, FramesTurn) and len(frame) == 1):
            continue
        place = number + 2
        while isinstance(answer, DstTurn) and place + 1 < len(turns):  # of the frame
            place += 1
            answer = turns[place]
        if isinstance(answer, AssistantTurn):
            written.insert(place - 1, written.pop(number))
    return written
