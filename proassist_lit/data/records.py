"""Conversation records on disk: one JSON object a line, a superset of ProAssist's prepared rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proassist_lit.atomic import write_text
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
from proassist_lit.data.record_checks import Fields, load_json, show
from proassist_lit.errors import RecordError
from proassist_lit.types import StepState, Transition, Update

ROLES = ("system", "user", "assistant", "frames", "dst")
"""The kinds of turns a record may hold."""

_STEP_ID = re.compile(r"\w+", re.ASCII)  # ids are written as `S1->start;S2->...` in text


def parse_record(raw: object, *, where: str) -> Conversation:
    """Check one record and build the conversation it describes.

    Unknown keys of the record and of its turns, and optional keys given as null or empty, are
    kept in ``extra``, so that ``record_to_json`` gives back an equal record.

    Args:
        raw: parsed JSON of the record.
        where: ``file:line`` of the record; opens every message.

    Raises:
        RecordError: the first fault of the record.
    """
    parsed = _parse(raw, where)
    if isinstance(parsed, list):
        raise parsed[0]
    return parsed


def read_records(path: Path) -> list[Conversation]:
    """Read and check a prepared file.

    Args:
        path: ``.jsonl``, one record a line (blank lines are skipped), or ``.json`` with a list of
            records or a single one.

    Raises:
        RecordError: the file cannot be read, holds no records, or has a fault: the first one.
    """
    conversations = []
    for parsed in _scan(path):
        if isinstance(parsed, list):
            raise parsed[0]
        conversations.append(parsed)
    return conversations


def find_faults(path: Path) -> list[RecordError]:
    """Every fault of a prepared file, in order; empty if ``read_records`` would read it."""
    return [fault for parsed in _scan(path) if isinstance(parsed, list) for fault in parsed]


def write_records(path: Path, conversations: Iterable[Conversation]) -> None:
    """Write a prepared file in one piece: readers see the old file or the new one, never a half.

    Args:
        path: ``.jsonl``, or ``.json`` for one list; its folder is made if need be.
        conversations: the records, in order; at least one.

    Raises:
        RecordError: there is nothing to write, a conversation is not one that ``read_records``
            would read back, or the file cannot be written. What was there before stays.
    """
    lines = []
    for i, conversation in enumerate(conversations):
        where = f"{path}: record {i} (video {conversation.video_uid!r})"
        try:
            line = json.dumps(record_to_json(conversation), allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise RecordError(
                f"{where}: cannot be written as JSON: {error}. Keep only text, finite numbers, "
                "lists and dicts in metadata and extra."
            ) from error
        parse_record(load_json(line, where), where=where)  # never write what cannot be read
        lines.append(line)
    if not lines:
        raise RecordError(f"{path}: no records to write; give at least one conversation.")
    text = (
        "[\n" + ",\n".join(lines) + "\n]\n" if path.suffix == ".json" else "\n".join(lines) + "\n"
    )
    try:
        write_text(path, text)
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written: {error}. Check the folder and the free space."
        ) from error


def record_to_json(conversation: Conversation) -> dict[str, Any]:
    """The record as plain JSON values; ``parse_record`` makes an equal conversation of it."""
    known: dict[str, Any] = {
        "dataset": conversation.dataset,
        "video_uid": conversation.video_uid,
        "clip_idx": conversation.clip_idx,
        "frames_file": conversation.frames_file,
        "fps": conversation.fps,
        "num_tokens_per_img": conversation.num_tokens_per_img,
        "start_frame_idx": conversation.start_frame_idx,
        "end_frame_idx": conversation.end_frame_idx,
    }
    if conversation.steps:
        known["steps"] = [{"id": step.id, "name": step.name} for step in conversation.steps]
        known["initial_state"] = {
            step_id: state.value for step_id, state in conversation.initial_state.items()
        }
    known["conversation"] = [_turn_to_json(turn) for turn in conversation.turns]
    known["metadata"] = dict(conversation.metadata)
    return {**known, **_unknown(conversation.extra, known)}


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    known: dict[str, Any]
    match turn:
        case FramesTurn():
            known = {"role": "frames", "start": turn.start, "end": turn.end}
        case DstTurn():
            updates = [{"id": u.id, "transition": u.transition.value} for u in turn.updates]
            known = {"role": "dst", "updates": updates}
        case SystemTurn():
            known = {"role": "system", "content": turn.content}
        case UserTurn():
            known = {"role": "user", "time": turn.time_s, "content": turn.content}
        case AssistantTurn():
            known = {
                "role": "assistant",
                "time": turn.time_s,
                "content": turn.content,
                "labels": turn.labels,
                "progress": turn.progress,
                "keywords": list(turn.keywords) or None,
            }
    known = {key: value for key, value in known.items() if value is not None}
    return {**known, **_unknown(turn.extra, known)}


def _unknown(extra: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key not in known}


def _scan(path: Path) -> Iterator[Conversation | list[RecordError]]:
    """Each record of the file, or the faults of it."""
    num_records = 0
    for where, raw in _pieces(path):
        num_records += 1
        yield [raw] if isinstance(raw, RecordError) else _parse(raw, where)
    if num_records == 0:
        yield [
            RecordError(
                f"{path}: holds no records; write one JSON object a line, or leave the file out."
            )
        ]


def _pieces(path: Path) -> Iterator[tuple[str, object]]:
    """Place and parsed JSON of each record; in the place of the JSON, the fault of reading it."""
    try:
        if path.suffix != ".json":
            with path.open("rb") as file:
                for line_no, line in enumerate(file, start=1):
                    if line.strip():
                        where = f"{path}:{line_no}"
                        yield where, _load(line, where)
        elif content := path.read_bytes().strip():
            document = _load(content, f"{path}:1")
            if isinstance(document, list):
                yield from ((f"{path}[{i}]", raw) for i, raw in enumerate(document))
            else:
                yield f"{path}:1", document
    except OSError as error:
        reason = error.strerror or str(error)
        yield f"{path}", RecordError(f"{path}: cannot be read: {reason}. Check the path.")


def _load(text: bytes, where: str) -> object:
    try:
        return load_json(text, where)
    except RecordError as fault:
        return fault


def _parse(raw: object, where: str) -> Conversation | list[RecordError]:
    """The conversation, or every fault of the record."""
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
        metadata=row.mapping("metadata"),
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
        if step_id.strip() and not _STEP_ID.fullmatch(step_id):
            step.fault(f"the id {show(step_id)} must be letters and digits; call it S{i + 1}")
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
            return FramesTurn(start=start, end=end, extra=fields.rest())
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
            known = ", ".join(step_ids[:20])
            update.fault(
                f"unknown step {show(step_id)}; known: {known}. Correct it, or add the step"
            )
        updates.append(Update(step_id, Transition(transition)))
    return tuple(updates)
