"""Rows of ProAssist's DST extension as conversations, and the way back, without a loss.

A row has steps (``dst``), a span of frames, and either a ``conversation`` whose turns name the
frame they happen at, or sparse ``events``: the frames at which something happens. Conversations
differ from it in two ways: watched frames are turns of their own, and what happens at one frame is
in the order in which it is fed: user (and later system) turns before the frame, updates and then
utterances after it. Everything else of the source is under ``metadata["source"]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proassist_lit.data.conversation import AssistantTurn, Conversation
from proassist_lit.data.record_checks import Fields, load_json, nearest, show
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.sources.dst_order import check_frames, in_order
from proassist_lit.data.sources.dst_turns import (
    SOURCE_TURN,
    Item,
    difference,
    read_item,
    restored,
    write_item,
)
from proassist_lit.data.sources.proassist import frames_file, prepared_files
from proassist_lit.errors import RecordError
from proassist_lit.types import StepState

FPS = 2
"""Frames per second of a row that does not say."""

DATASET = "dst"
"""Name of the data set of a row that does not say."""

_STATES = [state.value for state in StepState]


def read_dst(root: Path, pattern: str = "*/*.json") -> list[Conversation]:
    """Read the rows of all files below ``root`` that fit ``pattern``, in the order of their names.

    Raises:
        RecordError: no file fits, or one of them has a fault.
    """
    return [row for path in prepared_files(root, pattern) for row in read_dst_rows(path)]


def read_dst_rows(path: Path, *, allow_empty: bool = False) -> list[Conversation]:
    """Read and check a file of rows.

    Args:
        path: ``.json`` with a list of rows or a single one, or ``.jsonl`` with one row a line.
        allow_empty: accept assistant turns without text, as the extension's own code does.

    Raises:
        RecordError: the file cannot be read, holds no rows, or one of them has a fault.
    """
    rows = [row_to_conversation(raw, w, allow_empty=allow_empty) for w, raw in _rows(path)]
    if not rows:
        raise RecordError(f"{path}: holds no rows; write a list of them, or leave the file out.")
    return rows


def row_to_conversation(raw: object, where: str, *, allow_empty: bool = False) -> Conversation:
    """Check one row and make a conversation of it.

    Args:
        raw: parsed JSON of the row; stays as it is.
        where: ``file:line`` of the row, or ``file[i]``; opens every message.
        allow_empty: accept assistant turns without text. ``write_records`` refuses them.

    Raises:
        RecordError: the first fault; names the row and its turn or event.
    """
    faults: list[RecordError] = []
    record = _record(Fields(raw, where, faults), raw, allow_empty)
    if faults:
        raise faults[0]
    empty: dict[int, str] = {}
    for turn in record["conversation"]:
        if turn["role"] == "assistant" and not turn["content"].strip():
            empty[turn[SOURCE_TURN]] = turn["content"]
            turn["content"] = "..."  # for the checks of records only
    conversation = parse_record(record, where=where)
    return replace(conversation, turns=tuple(
        replace(turn, content=empty[turn.extra[SOURCE_TURN]])
        if isinstance(turn, AssistantTurn) and turn.extra[SOURCE_TURN] in empty else turn
        for turn in conversation.turns
    ))  # fmt: skip


def conversation_to_row(conversation: Conversation) -> dict[str, Any]:
    """The row again: equal to the one that was read, but for what was changed since.

    Raises:
        RecordError: the conversation was not made of such a row, or has not all of its turns, or
            others.
    """
    where = conversation.source or conversation.id
    source = conversation.metadata.get("source")
    if not isinstance(source, Mapping) or source.get("format") not in ("turns", "events"):
        raise RecordError(
            f"{where}: was not made of a row of the DST extension: its metadata hold no 'source'; "
            "write it with write_records instead."
        )
    record = record_to_json(conversation)
    made_of: dict[object, list[dict[str, Any]]] = {i: [] for i in range(len(source["turns"]))}
    for i, turn in enumerate(record["conversation"]):
        if turn["role"] == "frames":
            continue
        if turn.get(SOURCE_TURN) not in made_of:
            raise RecordError(
                f"{where}: turn {i} was not in the row that the conversation was made of; only "
                "that row's own turns can be written back. Use write_records for others."
            )
        made_of[turn[SOURCE_TURN]].append(turn)
    items = []
    for number, layout in enumerate(source["turns"]):
        if len(made_of[number]) != layout["num_turns"]:
            raise RecordError(
                f"{where}: {len(made_of[number])} turns are left of turn {number} of the row, "
                f"which made {layout['num_turns']}; only whole rows can be written back. Use "
                "write_records for parts."
            )
        items.append(write_item(made_of[number], layout))
    key = "conversation" if source["format"] == "turns" else "events"
    return {**restored(_write_row(record), source["row"]), key: items}


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """Place and parsed JSON of each row."""
    try:
        if path.suffix == ".json":
            document = load_json(path.read_bytes(), f"{path}:1")
            if isinstance(document, list):
                yield from ((f"{path}[{i}]", raw) for i, raw in enumerate(document))
            else:
                yield f"{path}:1", document
            return
        with path.open("rb") as file:
            for line_no, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{line_no}", load_json(line, f"{path}:{line_no}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordError(f"{path}: cannot be read: {reason}. Check the path.") from error


def _record(row: Fields, raw: object, allow_empty: bool) -> dict[str, Any]:
    """The row as a record; of no use if faults were noted."""
    if not isinstance(raw, dict):  # noted by `row`
        return {}
    is_sparse = "events" in raw and not row.has("conversation")
    start_key, end_key = (
        f"{end}_frame_idx" if row.has(f"{end}_frame_idx") else f"{end}_frame"
        for end in ("start", "end")
    )
    start, end = row.index(start_key), row.index(end_key, minimum=1)
    if end <= start and not row.num_faults:
        row.fault(
            f"holds no frames: {start_key} {start}, {end_key} {end} (exclusive); correct them"
        )
    name = "event" if is_sparse else "turn"
    items = [
        read_item(row.inner(r, f"{name} {i}"), r, i, is_event=is_sparse, allow_empty=allow_empty)
        for i, r in enumerate(row.items("events" if is_sparse else "conversation"))
    ]
    if row.num_faults:
        return {}
    steps = _steps(row, items)
    check_frames(items, start, end, end_key)
    dataset = row.text("dataset") if row.has("dataset") else DATASET
    video_uid = row.text("video_uid")
    record: dict[str, Any] = {
        "dataset": dataset,
        "video_uid": video_uid,
        "clip_idx": row.index("clip_idx") if row.has("clip_idx") else 0,
        "frames_file": _frames_file(row, dataset, video_uid),
        "fps": row.number("fps", positive=True) if row.has("fps") else FPS,
        "num_tokens_per_img": (
            row.index("num_tokens_per_img", minimum=1) if row.has("num_tokens_per_img") else 1
        ),
        "start_frame_idx": start,
        "end_frame_idx": end,
        "conversation": in_order(items, start, end),
        "metadata": dict(raw["metadata"]) if isinstance(raw.get("metadata"), dict) else {},
    }
    if steps:
        record["steps"] = [{"id": step_id, "name": name} for step_id, name in steps.items()]
        record["initial_state"] = _initial_state(items, list(steps))
    left = {
        key: value
        for key, value in raw.items()
        if key != ("events" if is_sparse else "conversation")
    }
    record["metadata"]["source"] = {
        "format": "events" if is_sparse else "turns",
        "row": difference(left, _write_row(record)),
        "turns": [item.layout() for item in items],
    }
    return record


def _write_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of the row it was made of, under every name that a row may use."""
    start, end = record["start_frame_idx"], record["end_frame_idx"]
    keys = ("dataset", "video_uid", "clip_idx", "frames_file", "fps", "num_tokens_per_img")
    return {
        **{key: record[key] for key in keys},
        **{"start_frame_idx": start, "start_frame": start},
        **{"end_frame_idx": end, "end_frame": end},
        "dst": record.get("steps", []),
        "metadata": {k: v for k, v in record["metadata"].items() if k != "source"},
    }


def _steps(row: Fields, items: Sequence[Item]) -> dict[str, str]:
    """Name of each step by its id; of a row that lists none, the ids that it updates."""
    known = [step_id for item in items for step_id in item.updated_steps]
    if not row.has("dst"):
        first = _first_state(items)
        known += list(first.state) if first and isinstance(first.state, dict) else []
        return {step_id: step_id for step_id in sorted(set(known), key=lambda s: (len(s), s))}
    steps: dict[str, str] = {}
    for i, raw in enumerate(row.items("dst")):
        entry = row.inner(raw, f"dst entry {i}")
        step_id = entry.text("id")
        if step_id in steps:
            entry.fault(
                f"the id {show(step_id)} is that of an earlier entry; number them S1, S2, .."
            )
        steps[step_id] = entry.text("name")
    for item in items:
        for step_id in item.updated_steps:
            if step_id not in steps:
                item.fields.fault(
                    f"updates the unknown step {show(step_id)}; known: {show(list(steps))}. "
                    "Correct it, or add the step to 'dst'"
                )
    return steps


def _first_state(items: Sequence[Item]) -> Item | None:
    """The first turn that tells the state before it, if nothing was updated until then."""
    for item in items:
        if item.state:
            return item
        if item.updated_steps:
            break
    return None


def _initial_state(items: Sequence[Item], step_ids: Sequence[str]) -> dict[str, str]:
    """State of every step before the first frame: as told, else not started."""
    state = dict.fromkeys(step_ids, StepState.NOT_STARTED.value)
    first = _first_state(items)
    if first is not None:
        told = first.fields.inner(first.state, "dst_state")
        for step_id, now in told.rest().items():
            if step_id not in state:
                told.fault(f"unknown step {show(step_id)}; add it to 'dst', or remove it here")
            elif now not in _STATES:
                told.fault(
                    f"unknown state {show(now)} of the step {show(step_id)}; did you mean "
                    f"{nearest(show(now), _STATES)!r}? Known: {', '.join(_STATES)}"
                )
            else:
                state[step_id] = now
    return state


def _frames_file(row: Fields, dataset: str, video_uid: str) -> str:
    """The row's own name if it is in ProAssist's layout, else the one this layout gives."""
    given = row.text("frames_file") if row.has("frames_file") else ""
    if given.startswith("frames/") or row.num_faults:
        return given
    try:
        return frames_file(dataset, video_uid)
    except RecordError as error:
        row.fault(str(error).rstrip("."))
        return ""
