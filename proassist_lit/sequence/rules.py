"""Where our sequences differ on purpose from those of the reference systems."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proassist_lit.sequence.chat import ChatFormat


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
        ask_behind_frames: a recorded request for a summary stands with its answer behind the frame
            between them, as streams ask for one.
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
        feed_updates: the steps are told, and updates of their state written. Otherwise neither is,
            as a stream of a model without a head for them never writes any; of the steps only what
            is relevant is still known.
        learn_openings: the openings of the assistant's turns are learnt in every chat format, as
            streams by these rules write them word by word; otherwise where the format says so.
    """

    join_utterances: bool = True
    join_updates: bool = True
    join_frames: bool = True
    decide_summaries: bool = False
    ask_behind_frames: bool = True
    label_every_frame: bool = False
    obey_flags: bool = False
    feed_user_text: bool = True
    write_empty_utterances: bool = True
    sample_by_turn: bool = False
    keep_event_frames: bool = False
    overview_needs_event: bool = False
    feed_updates: bool = True
    learn_openings: bool = False

    def written_in(self, chat_format: ChatFormat) -> ChatFormat:
        """The chat format, as these rules write and teach it."""
        return replace(chat_format, train_openings=True) if self.learn_openings else chat_format


OURS = SequenceRules()

PROASSIST = SequenceRules(
    join_utterances=False,
    join_frames=False,
    decide_summaries=True,
    ask_behind_frames=False,
    sample_by_turn=True,
    feed_updates=False,
    learn_openings=True,
)
"""ProAssist's released collator, arXiv:2506.05904. It knows no state of a task."""

DST_EXTENSION = SequenceRules(
    join_utterances=False,
    join_updates=False,
    ask_behind_frames=False,
    label_every_frame=True,
    obey_flags=True,
    feed_user_text=False,
    write_empty_utterances=False,
    keep_event_frames=True,
    overview_needs_event=True,
)
"""The collator of ProAssist's DST extension."""


def rules_for(compat: bool, chat: str, *, dst: bool = True) -> SequenceRules:
    """The rules that make the sequences of a run.

    Args:
        compat: a reference system's instead of ours.
        chat: name of the chat format; by it the two reference systems are told apart.
        dst: whether the model decides on updates; without, they are in no sequence.
    """
    rules = OURS
    if compat:
        rules = DST_EXTENSION if chat == "dst_ext" else PROASSIST
    return rules if dst else replace(rules, feed_updates=False)
