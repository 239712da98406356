"""Checks one conversation record and builds the conversation that it describes."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
from proassist_lit.data.record_checks import Fields, show
from proassist_lit.errors import RecordError
from proassist_lit.types import StepState, Transition, Update

ROLES = ("system", "user", "assistant", "frames", "dst")
"""The kinds of turns a record may hold."""

STEP_ID = re.compile(r"\w{1,32}", re.ASCII)
"""What a step may be called: ids are written as ``S1->start;S2->...`` in text."""


def check_record(raw: object, where: str) -> Conversation | list[RecordError]:
    """Check one record.

    Args:
        raw: parsed JSON of the record; stays as it is.
        where: ``file:line`` of the record; opens every message.

    Returns:
        The conversation that it describes, or every fault.
    """
    faults: list[RecordError] = []
    row = Fields(raw, where, faults)
    if faults:
        return faults
    start = row.index("start_frame_idx")
    end = row.index("end_frame_idx", minimum=1)
    has_span = not faults
    known = _steps(row)
    steps, initial_state = known or ((), {})
    step_ids = [step.id for step in steps] if known else None
    conversation = Conversation(
        dataset=row.text("dataset"),
        video_uid=row.text("video_uid"),
        clip_idx=row.index("clip_idx"),
        frames_file=row.text("frames_file"),
        fps=row.number("fps", positive=True),
        num_tokens_per_img=row.index("num_tokens_per_img", minimum=1),
        start_frame_idx=start,
        end_frame_idx=end,
        turns=_turns(row, step_ids, (start, end) if has_span else None),
        steps=steps,
        initial_state=initial_state,
        metadata={} if row.is_null("metadata") else row.mapping("metadata"),
        extra=row.rest(),
        source=where,
    )
    return faults or conversation


def _steps(row: Fields) -> tuple[tuple[TaskStep, ...], dict[str, StepState]] | None:
    """Steps of the task and their first state, both or neither; None if they are faulty."""
    if not row.has("steps"):
        if row.has("initial_state"):
            row.fault("'initial_state' is given without 'steps'; list the steps, or remove it")
        return (), {}
    num_faults = row.num_faults
    steps: dict[str, TaskStep] = {}
    for i, raw in enumerate(row.items("steps")):
        step = row.inner(raw, f"step {i}")
        step_id, name = step.text("id"), step.text("name")
        step.refuse_rest()
        if step_id.strip() and not STEP_ID.fullmatch(step_id):
            step.fault(
                f"the id {show(step_id)} must be letters and digits, 32 at most; call it S{i + 1}"
            )
        elif step_id in steps and step_id:
            step.fault(f"the id {show(step_id)} is that of an earlier step; number them S1, S2, ..")
        steps[step_id] = TaskStep(id=step_id, name=name)
    raw_state = row.mapping("initial_state")
    if row.num_faults > num_faults:
        return None
    state = row.inner(raw_state, "initial_state")
    states = [s.value for s in StepState]
    initial_state = {step_id: StepState(state.choice(step_id, states)) for step_id in steps}
    for step_id in state.rest():
        state.fault(f"unknown step {show(step_id)}; add it to 'steps', or remove it here")
    return tuple(steps.values()), initial_state


def _turns(
    row: Fields, step_ids: Sequence[str] | None, span: tuple[int, int] | None
) -> tuple[Turn, ...]:
    """The turns, each checked by itself and against those before it.

    Args:
        row: the record.
        step_ids: steps that updates may name; None if they are faulty.
        span: first frame of the record and one past its last; None if they are faulty.
    """
    turns: list[Turn] = []
    last_time_s = 0.0
    has_frames, frames_right = False, True
    watched = span[0] if span else None  # the frame to watch next; None after a fault about frames
    num_faults = row.num_faults
    raw_turns = row.items("conversation")
    if row.num_faults > num_faults:
        return ()
    for i, raw in enumerate(raw_turns):
        num_faults = row.num_faults
        fields = row.inner(raw, f"turn {i}")
        role = fields.choice("role", ROLES)
        if row.num_faults > num_faults:
            # it may have been frames: do not blame the others
            has_frames, frames_right, watched = True, False, None
            continue
        time_s = fields.number("time") if role != "frames" and fields.has("time") else None
        if time_s is not None:
            if time_s < last_time_s:
                fields.fault(
                    f"its time {show(time_s)} s is before an earlier turn's {show(last_time_s)} s; "
                    "times never decrease: sort the turns, or correct the time"
                )
            last_time_s = max(last_time_s, time_s)
        turn = _turn(role, fields, time_s, step_ids)
        turns.append(turn)
        if isinstance(turn, DstTurn) and not has_frames:
            fields.fault("a dst turn stands before any frame; put it after the frame it belongs to")
        if isinstance(turn, FramesTurn):
            has_frames = True
            if row.num_faults == num_faults and span is not None:
                _check_frames(fields, turn, watched, span)
            is_right = row.num_faults == num_faults
            watched = turn.end if is_right else None
            frames_right = frames_right and is_right
    if not has_frames:
        row.fault("no frames at all; add a turn with role 'frames' and its 'start' and 'end'")
    elif span is not None and frames_right and watched != span[1]:
        row.fault(
            f"the frames turns end at {watched} but 'end_frame_idx' is {span[1]}; make them equal "
            "(both are one past the last frame)"
        )
    return tuple(turns)


def _check_frames(
    fields: Fields, turn: FramesTurn, expected: int | None, span: tuple[int, int]
) -> None:
    """Frames turns follow each other without gap or overlap, from the record's start to its end.

    ProAssist's preparation asserts the same (as many images as ``end - start`` frames).
    """
    got = f"frames {turn.start} to {turn.end} (end exclusive)"
    if turn.start < span[0] or turn.end > span[1]:
        fields.fault(
            f"{got} reach outside the record's start_frame_idx {span[0]} .. end_frame_idx "
            f"{span[1]}; indices are absolute in the video: correct the turn or the record"
        )
    elif expected is not None and turn.start != expected:
        fault = "overlap or go back" if turn.start < expected else "leave a gap"
        fields.fault(f"{got} {fault}: the next frame to watch is {expected}; start there")


def _turn(role: str, fields: Fields, time_s: float | None, step_ids: Sequence[str] | None) -> Turn:
    """One turn of a known role; its time was taken already."""
    kept = {} if time_s is None or role in ("user", "assistant") else {"time": time_s}
    num_faults = fields.num_faults
    match role:
        case "frames":
            start, end = fields.index("start"), fields.index("end", minimum=1)
            if fields.num_faults == num_faults and end <= start:
                fields.fault(
                    f"an empty frames turn: start {start}, end {end} (exclusive); end must be "
                    "larger than start, or remove the turn"
                )
            given = fields.rest().get("supervised")  # one that tells nothing new stays unknown
            supervised = given is None or given is True or fields.flag("supervised")
            return FramesTurn(start=start, end=end, supervised=supervised, extra=fields.rest())
        case "dst":
            return DstTurn(updates=_updates(fields, step_ids), extra={**fields.rest(), **kept})
        case "user":
            return UserTurn(content=fields.text("content"), time_s=time_s, extra=fields.rest())
        case "system":
            return SystemTurn(content=fields.text("content"), extra={**fields.rest(), **kept})
    return AssistantTurn(
        content=fields.text("content"),
        time_s=time_s,
        labels=fields.text("labels", may_be_empty=True) if fields.has("labels") else None,
        progress=fields.text("progress", may_be_empty=True) if fields.has("progress") else None,
        keywords=fields.words("keywords") if fields.has("keywords") else (),
        extra=fields.rest(),
    )


def _updates(fields: Fields, step_ids: Sequence[str] | None) -> tuple[Update, ...]:
    updates = []
    if fields.rest().get("updates") == []:
        fields.fault("'updates' is empty; list what changed, or remove the turn")
    for raw in fields.items("updates"):
        update = fields.inner(raw, "update")
        step_id = update.text("id")
        transition = update.choice("transition", [t.value for t in Transition])
        update.refuse_rest()
        if step_id and step_ids == []:
            update.fault(
                f"updates the step {show(step_id)} but the record lists no steps; add 'steps' and "
                "'initial_state' to the record"
            )
        elif step_id and step_ids is not None and step_id not in step_ids:
            known = ", ".join(step_ids[:10])
            update.fault(
                f"unknown step {show(step_id)}; known: {known}. Correct it, or add the step"
            )
        updates.append(Update(step_id, Transition(transition)))
    return tuple(updates)
