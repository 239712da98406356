"""What holds at each frame of a script: what the reference does, whether a step is under way."""

from __future__ import annotations

from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Script
from proassist_lit.types import Reference, StepState, apply_updates


def references(script: Script) -> tuple[Reference, ...]:
    """What the reference does at every frame, for metrics and reports.

    Assistant and dst turns without a frame of their own are kept, at the last frame before them
    (before the first frame, at that one). Summaries are no utterances.
    """
    out: list[Reference] = []
    state: dict[str, StepState] = dict(script.initial_state)
    early = script.moments[0].before if script.moments else ()
    followers = [moment.before for moment in script.moments[1:]] + [script.after]
    for moment, late in zip(script.moments, followers, strict=True):
        texts = (*early, *moment.spans, *late)
        said = [text for text in texts if text.role is Role.ASSISTANT and not text.is_summary]
        updates = tuple(update for text in texts for update in text.updates)
        if updates:  # frames between two share one state
            state, _ = apply_updates(state, updates)
        utterance = " ".join(text.content for text in said if text.content)
        out.append(
            Reference(
                text=utterance,
                updates=updates,
                state=state,
                keywords=tuple(word for text in said for word in text.keywords),
                kinds=tuple(dict.fromkeys(kind for text in said for kind in text.kinds)),
                is_summary=any(text.is_summary for text in texts) and not utterance,
                speak_label=moment.speak_label,
                dst_label=moment.dst_label,
                supervised=moment.supervised,
            )
        )
        early = ()
    return tuple(out)


def relevance_labels(script: Script) -> list[int | None]:
    """Which frames have to do with the task: 1 while a step is under way, else 0; None unknown.

    A step is under way at the frames at which it is started and completed, and at all between.
    Nothing is known without steps, nor where the source does not know what is right
    (``Moment.supervised``) unless a step is under way by what it does tell.

    Source: MMDuet, arXiv:2411.17991, learns it from segments of a video that answer a question;
    the steps of a task in their place are our reading.
    """
    if not script.steps:
        return [None] * len(script.moments)
    labels: list[int | None] = []
    state = dict(script.initial_state)
    for moment in script.moments:
        late = [update for text in moment.before for update in text.updates]
        state, _ = apply_updates(state, late)
        after, _ = apply_updates(state, moment.updates)
        both = (*state.values(), *after.values())
        under_way = bool(moment.updates) or StepState.IN_PROGRESS in both
        labels.append(int(under_way) if under_way or moment.supervised else None)
        state = after
    return labels
