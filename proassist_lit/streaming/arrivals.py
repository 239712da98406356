"""What reaches a stream at a frame: what is heard, and what the reference says where it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Script, Text
from proassist_lit.streaming.config import ContextSource


@dataclass(frozen=True)
class Said:
    """What the reference dialogue says at a frame, where it makes the context.

    Attributes:
        before: text before the frame, all roles.
        spans: its spans after the frame.
    """

    before: tuple[Text, ...] = ()
    spans: tuple[Text, ...] = ()


def heard(script: Script, index: int) -> tuple[Text, ...]:
    """What an assistant hears before frame ``index``: users and system, never the reference.

    Nor a request for a summary that the reference has answered already; an update may come between.
    """
    texts = [text for text in script.moments[index].before if text.role is not Role.DST]
    answered = [text.is_request and after.is_summary for text, after in pairwise(texts)]
    return tuple(
        text
        for text, is_answered in zip_longest(texts, answered)
        if text.role in (Role.USER, Role.SYSTEM) and not is_answered
    )


def user_words(texts: Iterable[Text]) -> str:
    """What users say among ``texts``: what the system tells (task knowledge) is no dialogue."""
    return " ".join(text.content for text in texts if text.role is Role.USER)


def opening(script: Script, context: ContextSource) -> tuple[Text, ...]:
    """What a stream is told between its prompt and its first frame."""
    if not script.moments:
        return ()
    return script.moments[0].before if context is ContextSource.REFERENCE else heard(script, 0)


def arriving(script: Script, index: int) -> tuple[tuple[Text, ...], Said]:
    """What a stream is told at frame ``index``: what is heard, and what the reference says."""
    moment = script.moments[index]
    return heard(script, index), Said(moment.before, moment.spans)
