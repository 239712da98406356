"""The script of a conversation: what is said before and after every frame, and the decisions.

This file and ``builder`` are the only places that know how turns and frames are aligned. Training
data, references of the metrics, and ground-truth context are all read from a script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    TaskStep,
    Turn,
    UserTurn,
)
from proassist_lit.data.sources.dst_record import row_source
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY, written_turns
from proassist_lit.types import StepState, Update, format_updates

KNOWLEDGE = "Task knowledge:"
"""How a system turn begins that tells what is known of the task (ProAssist's words). It is text
like any other, but a context that is begun anew tells it again, in its first system turn."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A turn of text as it is fed: a span after a frame, or what precedes one.

    Attributes:
        role: who it is from.
        content: the words.
        updates: of a dst turn, what ``content`` writes.
        keywords: of an assistant turn, words that a right utterance must hold.
        kinds: of an assistant turn, what it does, as its source names it.
        is_summary: of an assistant turn, whether it answers a request for a summary; it is then
            no utterance that anybody hears.
    """

    role: Role
    content: str
    updates: tuple[Update, ...] = ()
    keywords: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    is_summary: bool = False

    @property
    def is_request(self) -> bool:
        """Whether it asks for a summary."""
        return self.role is Role.SYSTEM and self.content == SUMMARY_QUERY

    @property
    def is_knowledge(self) -> bool:
        """Whether it tells what is known of the task."""
        return self.role is Role.SYSTEM and self.content.startswith(KNOWLEDGE)


@dataclass(kw_only=True)
class Moment:
    """One frame with what is said around it.

    Attributes:
        frame_idx: absolute in the video.
        before: text that arrives after the frame before and precedes this frame's image tokens.
        spans: what is written right after the frame: dst, then assistant.
        speak_label: 1 an assistant span follows, 0 not, None neither.
        dst_label: the same for the dst span; None for every frame of a record without steps, and
            where the rules write no updates.
        frames_turn: number of the frames turn it belongs to.
        has_event: whether anybody says anything at this frame.
        supervised: whether it is known what to do at this frame, if nothing is done.
    """

    frame_idx: int
    before: tuple[Text, ...] = ()
    spans: tuple[Text, ...] = ()
    speak_label: int | None = None
    dst_label: int | None = None
    frames_turn: int = 0
    has_event: bool = False
    supervised: bool = True

    @property
    def updates(self) -> tuple[Update, ...]:
        """State updates of its dst span."""
        return tuple(update for span in self.spans for update in span.updates)

    @property
    def utterance(self) -> str:
        """Words of its assistant span, empty without one."""
        said = (span.content for span in self.spans if span.role is Role.ASSISTANT)
        return " ".join(words for words in said if words)

    @property
    def has_summary(self) -> bool:
        """Whether its assistant span is a summary."""
        return any(span.is_summary for span in self.spans)


@dataclass(kw_only=True)
class Script:
    """A conversation, frame by frame.

    Attributes:
        prompt: content of the first system turn, without the steps.
        steps: steps of the task, as far as they are told.
        initial_state: state of every step at the beginning.
        moments: one entry a frame, in order.
        after: text after the last frame.
    """

    prompt: str
    steps: tuple[TaskStep, ...]
    initial_state: dict[str, StepState]
    moments: list[Moment] = field(default_factory=list)
    after: tuple[Text, ...] = ()


def read_script(conversation: Conversation, rules: SequenceRules = OURS) -> Script:
    """Align the turns of ``conversation`` with its frames.

    By our rules adjoining frames turns are merged. Consecutive dst turns after a frame make one
    dst span, consecutive assistant turns one assistant span (joined by a space); ``rules`` may tell
    otherwise. Assistant or dst turns that do not follow a frame are text before the next frame.
    """
    if not rules.feed_updates:
        conversation = conversation.without_updates()
    turns = list(written_turns(conversation, rules))
    prompt = ""
    if turns and isinstance(turns[0], SystemTurn):
        prompt = turns.pop(0).content.strip()  # type: ignore[union-attr]
    script = Script(
        prompt=prompt,
        steps=conversation.steps,
        initial_state=dict(conversation.initial_state),
    )
    source = row_source(conversation.metadata)
    events = _event_frames(source)
    # A later part of a split conversation begins between two events.
    begins = conversation.start_frame_idx in events or conversation.metadata.get("part", 0) != 0
    if rules.overview_needs_event and not (begins and _lists_steps(source)):
        script.steps = ()
    pending: list[Text] = []
    frames_turn, asked = 0, False
    for turn in turns:
        if isinstance(turn, FramesTurn):
            for frame_idx in range(turn.start, turn.end):
                script.moments.append(
                    Moment(
                        frame_idx=frame_idx,
                        before=tuple(pending),
                        frames_turn=frames_turn,
                        has_event=frame_idx in events,
                        supervised=turn.supervised,
                    )
                )
                pending = []
            frames_turn += not rules.join_frames
            continue
        # A span belongs to a frame only as long as nothing else was said since.
        frame = script.moments[-1] if script.moments and not pending else None
        text = _text(turn, is_summary=asked)
        if text.role is not Role.DST:  # an update may come between request and answer
            asked = text.is_request
        if text.role is Role.USER and not rules.feed_user_text:
            continue
        if frame is None or text.role in (Role.SYSTEM, Role.USER):
            pending += _dst_spans(text.updates, rules) if text.role is Role.DST else [text]
        else:
            frame.spans = _with_span(frame.spans, text, rules)
            frame.has_event = True
            if rules.obey_flags:
                _note_flags(frame, turn, text.role)
    script.after = tuple(pending)
    _label(script, conversation, rules)
    return script


def _event_frames(source: Mapping[str, Any] | None) -> set[int]:
    """Frames at which a row of the DST extension names a turn, whoever speaks."""
    kept = [layout.get("kept", {}) for layout in source["turns"]] if source else []
    names = ("start_frame", "frame", "frame_idx")  # of turns, of events
    named = (turn.get(name) for turn in kept for name in names)
    return {frame for frame in named if isinstance(frame, int)}


def _lists_steps(source: Mapping[str, Any] | None) -> bool:
    """Whether a row of the DST extension lists its steps; else they were read off its updates."""
    return source is not None and "dst" not in source["row"]["absent"]


def _text(turn: SystemTurn | UserTurn | AssistantTurn | DstTurn, *, is_summary: bool) -> Text:
    match turn:
        case SystemTurn():
            return Text(role=Role.SYSTEM, content=turn.content.strip())
        case UserTurn():
            return Text(role=Role.USER, content=turn.content.strip())
        case DstTurn():
            words = format_updates(turn.updates)
            return Text(role=Role.DST, content=words, updates=turn.updates)
    return Text(
        role=Role.ASSISTANT,
        content=turn.content.strip(),
        keywords=turn.keywords,
        kinds=tuple(filter(None, re.split(r"[|,\s]+", turn.labels or ""))),
        is_summary=is_summary,
    )


def _with_span(spans: tuple[Text, ...], new: Text, rules: SequenceRules) -> tuple[Text, ...]:
    """``spans`` of a frame with another one; the dst span stays before the assistant's."""
    if new.role is Role.ASSISTANT and not new.content and not rules.write_empty_utterances:
        return spans
    dst = [span for span in spans if span.role is Role.DST]
    said = [span for span in spans if span.role is Role.ASSISTANT]
    if new.role is Role.DST:
        updates = tuple(update for span in (*dst, new) for update in span.updates)
        dst = _dst_spans(updates, rules)
    elif said and rules.join_utterances:
        said = [
            Text(
                role=Role.ASSISTANT,
                content=f"{said[0].content} {new.content}".strip(),
                keywords=said[0].keywords + new.keywords,
                kinds=tuple(dict.fromkeys(said[0].kinds + new.kinds)),
                is_summary=said[0].is_summary and new.is_summary,
            )
        ]
    else:
        said.append(new)
    return (*dst, *said)


def _dst_spans(updates: tuple[Update, ...], rules: SequenceRules) -> list[Text]:
    """The spans that write ``updates``."""
    groups = [updates] if rules.join_updates else [(update,) for update in updates]
    return [Text(role=Role.DST, content=format_updates(g), updates=g) for g in groups]


def _note_flags(frame: Moment, turn: Turn, role: Role) -> None:
    """Set the labels of ``frame`` as the turn's own flags say, else its role; a yes stays."""
    for name, flag, own in (
        ("speak_label", "speaking", role is Role.ASSISTANT),
        ("dst_label", "dst_update", role is Role.DST),
    ):
        given = turn.extra.get(flag)
        setattr(frame, name, max(getattr(frame, name) or 0, int(own if given is None else given)))


def _label(script: Script, conversation: Conversation, rules: SequenceRules) -> None:
    summary_only = bool(conversation.metadata.get("summary_only"))
    for i, moment in enumerate(script.moments):
        follower = script.moments[i + 1] if i + 1 < len(script.moments) else None
        silent = follower is not None and adjoins(moment, follower) and not summary_only
        if moment.has_summary and not rules.decide_summaries:
            continue
        for name, role in (("speak_label", Role.ASSISTANT), ("dst_label", Role.DST)):
            if getattr(moment, name) is not None:  # the source's flags said so
                continue
            if any(span.role is role for span in moment.spans):
                setattr(moment, name, 1)
            elif not moment.supervised:
                continue
            elif moment.spans or silent or rules.label_every_frame:
                setattr(moment, name, 0)
        if not rules.feed_updates or not (script.steps or rules.label_every_frame):
            moment.dst_label = None


def adjoins(moment: Moment, follower: Moment) -> bool:
    """Whether nothing but a separator may stand between two frames that follow each other."""
    return not moment.spans and not follower.before and moment.frames_turn == follower.frames_turn
