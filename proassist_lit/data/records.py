"""Conversation records on disk: one JSON object a line, a superset of ProAssist's prepared rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from proassist_lit.atomic import write_text
from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.data.git_lfs import is_pointer, pointer_fault
from proassist_lit.data.record_checks import load_json
from proassist_lit.data.record_parser import check_record
from proassist_lit.errors import RecordError

Checked = Conversation | list[RecordError]
"""What checking a record gives: the conversation, or every fault."""


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
    checked = check_record(raw, where)
    if isinstance(checked, list):
        raise checked[0]
    return checked


def read_records(path: Path) -> list[Conversation]:
    """Read and check a prepared file.

    Args:
        path: ``.jsonl``, one record a line (blank lines are skipped), or ``.json`` with a list of
            records or a single one.

    Raises:
        RecordError: the file cannot be read, holds no records, or has a fault: the first one.
    """
    return sound_records(scan(path))


def sound_records(scanned: Iterable[Checked]) -> list[Conversation]:
    """The conversations of a scan.

    Raises:
        RecordError: the first fault, if there is one.
    """
    conversations = []
    for checked in scanned:
        if isinstance(checked, list):
            raise checked[0]
        conversations.append(checked)
    return conversations


def scan(path: Path, check: Callable[[object, str], Checked] = check_record) -> Iterator[Checked]:
    """Go through a prepared file once, whatever is wrong with it.

    Args:
        path: as of ``read_records``.
        check: reads the JSON of one record, told where it stands; ``check_record``, or that of
            another source.

    Yields:
        Each record that is right, and in the place of others all that is wrong with them.
    """
    num_records = 0
    for where, raw in _pieces(path):
        num_records += 1
        yield [raw] if isinstance(raw, RecordError) else _checked(raw, where, check)
    if num_records == 0:
        yield [
            RecordError(
                f"{path}: holds no records; write one JSON object a line, or leave the file out."
            )
        ]


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
    if conversation.metadata or "metadata" not in conversation.extra:  # where it was null
        known["metadata"] = dict(conversation.metadata)
    return {**known, **_unknown(conversation.extra, known)}


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    known: dict[str, Any]
    match turn:
        case FramesTurn():
            known = {"role": "frames", "start": turn.start, "end": turn.end}
            known |= {} if turn.supervised else {"supervised": False}
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


def _pieces(path: Path) -> Iterator[tuple[str, object]]:
    """Place and parsed JSON of each record; in the place of the JSON, the fault of reading it."""
    if is_pointer(path):
        yield f"{path}", RecordError(f"{pointer_fault(path)}.")
        return
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


def _checked(raw: object, where: str, check: Callable[[object, str], Checked]) -> Checked:
    try:
        return check(raw, where)
    except RecursionError:  # just short of the depth at which JSON itself is refused
        return [
            RecordError(
                f"{where}: holds lists or objects that are nested too deeply; flatten them."
            )
        ]


def _load(text: bytes, where: str) -> object:
    try:
        return load_json(text, where)
    except RecordError as fault:
        return fault
