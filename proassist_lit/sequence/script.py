"""The script of a conversation: what is said before and after every frame, and the decisions.

This file and ``builder`` are the only places that know how turns and frames are aligned. Training
data, references of the metrics, and ground-truth context are all read from a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    TaskStep,
    UserTurn,
)
from proassist_lit.sequence.chat import Role
from proassist_lit.types import Reference, StepState, Update, apply_updates, format_updates


@dataclass(frozen=True)
class Text:
    """A turn of text that does not follow a frame: fed as it is.

    Attributes:
        role: who it is from.
        content: the words.
        updates: of a dst turn, what ``content`` writes.
        keywords: of an assistant turn, words that a right utterance must hold.
    """

    role: Role
    content: str
    updates: tuple[Update, ...] = ()
    keywords: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Moment:
    """One frame with what is said around it.

    Attributes:
        frame_idx: absolute in the video.
        before: text that arrives after the frame before and precedes this frame's image tokens.
        updates: state updates right after the frame: its dst span.
        utterance: what the assistant says right after the frame: its assistant span.
        keywords: words that a right utterance must hold.
        speak_label: 1 its assistant span follows, 0 not, None neither.
        dst_label: the same for the dst span; None for every frame of a record without steps.
    """

    frame_idx: int
    before: tuple[Text, ...] = ()
    updates: tuple[Update, ...] = ()
    utterance: str = ""
    keywords: tuple[str, ...] = ()
    speak_label: int | None = None
    dst_label: int | None = None

    @property
    def has_span(self) -> bool:
        """Whether anything is written after this frame."""
        return bool(self.updates or self.utterance)


@dataclass(kw_only=True)
class Script:
    """A conversation, frame by frame.

    Attributes:
        prompt: content of the first system turn, without the steps.
        steps: steps of the task.
        initial_state: state of every step at the beginning.
        moments: one entry a frame, in order.
        after: text after the last frame.
    """

    prompt: str
    steps: tuple[TaskStep, ...]
    initial_state: dict[str, StepState]
    moments: list[Moment] = field(default_factory=list)
    after: tuple[Text, ...] = ()


def read_script(conversation: Conversation) -> Script:
    """Align the turns of ``conversation`` with its frames.

    Adjoining frames turns are merged. Consecutive dst turns after a frame make one dst span,
    consecutive assistant turns one assistant span (joined by a space). Assistant or dst turns that
    do not follow a frame are text before the next frame.
    """
    turns = list(conversation.turns)
    prompt = ""
    if turns and isinstance(turns[0], SystemTurn):
        prompt = turns.pop(0).content  # type: ignore[union-attr]
    script = Script(
        prompt=prompt,
        steps=conversation.steps,
        initial_state=dict(conversation.initial_state),
    )
    pending: list[Text] = []
    for turn in turns:
        # Spans belong to a frame only as long as nothing else was said since.
        frame = script.moments[-1] if script.moments and not pending else None
        if isinstance(turn, FramesTurn):
            for frame_idx in range(turn.start, turn.end):
                script.moments.append(Moment(frame_idx=frame_idx, before=tuple(pending)))
                pending = []
        elif isinstance(turn, SystemTurn | UserTurn):
            role = Role.SYSTEM if isinstance(turn, SystemTurn) else Role.USER
            pending.append(Text(role, turn.content))
        elif isinstance(turn, DstTurn):
            if frame is not None:
                frame.updates += turn.updates
            else:
                pending.append(Text(Role.DST, format_updates(turn.updates), updates=turn.updates))
        elif isinstance(turn, AssistantTurn):
            if frame is not None:
                frame.utterance = f"{frame.utterance} {turn.content}".strip()
                frame.keywords += turn.keywords
            else:
                pending.append(Text(Role.ASSISTANT, turn.content, keywords=turn.keywords))
    script.after = tuple(pending)
    _label(script)
    return script


def _label(script: Script) -> None:
    for i, moment in enumerate(script.moments):
        follower = script.moments[i + 1] if i + 1 < len(script.moments) else None
        silent = follower is not None and not follower.before
        for name, span in (("speak_label", moment.utterance), ("dst_label", moment.updates)):
            if span:
                setattr(moment, name, 1)
            elif moment.has_span or silent:
                setattr(moment, name, 0)
        if not script.steps:
            moment.dst_label = None


def state_text(steps: Sequence[TaskStep], state: Mapping[str, StepState]) -> str:
    """How the prompt tells the steps and their state; empty without steps."""
    if not steps:
        return ""
    entries = []
    for step in steps:
        now = state.get(step.id, StepState.NOT_STARTED)
        mark = "" if now is StepState.NOT_STARTED else f" ({now.value.replace('_', ' ')})"
        entries.append(f"{step.id}: {step.name}{mark}.")
    return "Steps: " + " ".join(entries)


def system_text(script: Script, state: Mapping[str, StepState], summary: str = "") -> str:
    """Content of the first system turn: prompt, summary, steps and their state."""
    parts = (script.prompt, summary, state_text(script.steps, state))
    return " ".join(part for part in parts if part)


def references(script: Script) -> tuple[Reference, ...]:
    """What the reference does at every frame, for metrics and reports.

    Assistant and dst turns without a frame of their own are kept, at the last frame before them
    (before the first frame, at that one).
    """
    out: list[Reference] = []
    state: dict[str, StepState] = dict(script.initial_state)
    early = script.moments[0].before if script.moments else ()
    followers = [moment.before for moment in script.moments[1:]] + [script.after]
    for moment, late in zip(script.moments, followers, strict=True):
        own = Text(Role.ASSISTANT, moment.utterance, moment.updates, moment.keywords)
        texts = (*early, own, *late)
        said = [text for text in texts if text.role is Role.ASSISTANT]
        updates = tuple(update for text in texts for update in text.updates)
        state, _ = apply_updates(state, updates)
        out.append(
            Reference(
                text=" ".join(text.content for text in said if text.content),
                updates=updates,
                state=state,
                keywords=tuple(word for text in said for word in text.keywords),
                speak_label=moment.speak_label,
                dst_label=moment.dst_label,
            )
        )
        early = ()
    return tuple(out)
