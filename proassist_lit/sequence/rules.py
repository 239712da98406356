"""Where our sequences differ on purpose from those of the reference systems."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SequenceRules:
    """Rules of alignment and labels; the defaults are ours.

    Attributes:
        join_utterances: consecutive assistant turns after a frame are one span. Otherwise each
            stands as its own turn.
        join_updates: the updates of a frame are one span. Otherwise each has its own, as the DST
            extension writes them; a stream writes one span a frame, so it makes the first alone.
        join_frames: adjoining frames turns are one. Otherwise the last frame of the first is
            neither pos nor neg, and no separator follows it.
        decide_summaries: a frame that a summary answer follows counts as spoken at.
        label_every_frame: frames that user text follows, and the last one, count as silent, for
            both heads, steps or not.
        obey_flags: ``speaking`` and ``dst_update`` of a source's turn win over its role.
        feed_user_text: what the user says enters the sequence.
        write_empty_utterances: an assistant turn without words is written, opening and end.
        sample_by_turn: of every frames turn at least one silent frame is trained on, and
            ``int(rho * n)`` else; otherwise ``floor(rho * n)`` of the record.
        keep_event_frames: a frame at which anything is said, by whomever, is always trained on.
        overview_needs_event: the steps are told only if the source lists them and something is said
            at the first frame.
    """

    join_utterances: bool = True
    join_updates: bool = True
    join_frames: bool = True
    decide_summaries: bool = False
    label_every_frame: bool = False
    obey_flags: bool = False
    feed_user_text: bool = True
    write_empty_utterances: bool = True
    sample_by_turn: bool = False
    keep_event_frames: bool = False
    overview_needs_event: bool = False


OURS = SequenceRules()

PROASSIST = SequenceRules(
    join_utterances=False, join_frames=False, decide_summaries=True, sample_by_turn=True
)
"""ProAssist's released collator, arXiv:2506.05904."""

DST_EXTENSION = SequenceRules(
    join_utterances=False,
    join_updates=False,
    label_every_frame=True,
    obey_flags=True,
    feed_user_text=False,
    write_empty_utterances=False,
    keep_event_frames=True,
    overview_needs_event=True,
)
"""The collator of ProAssist's DST extension."""


def rules_for(compat: bool, chat: str) -> SequenceRules:
    """The rules that make the sequences of a run.

    Args:
        compat: a reference system's instead of ours.
        chat: name of the chat format; by it the two reference systems are told apart.
    """
    if not compat:
        return OURS
    return DST_EXTENSION if chat == "dst_ext" else PROASSIST
