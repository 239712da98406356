"""Rows of ProAssist's DST extension as conversations, and the way back, without a loss.

A row has steps (``dst``), a span of frames, and either a ``conversation`` whose turns name the
frame they happen at, or sparse ``events``: the frames at which something happens. Conversations
differ from it in two ways: watched frames are turns of their own, and what happens at one frame is
in the order in which it is fed: user (and later system) turns before the frame, updates and then
utterances after it. Everything else of the source is under ``metadata["source"]``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from proassist_lit.data.conversation import AssistantTurn, Conversation
from proassist_lit.data.record_checks import Fields
from proassist_lit.data.record_parser import check_record
from proassist_lit.data.records import Checked, record_to_json, scan, sound_records
from proassist_lit.data.sources.dst_record import row_source, row_to_record, write_row
from proassist_lit.data.sources.dst_turns import SOURCE_TURN, restored, write_item
from proassist_lit.data.sources.proassist import prepared_files
from proassist_lit.data.sources.source import PreparedSource
from proassist_lit.errors import RecordError


def read_dst(
    root: Path, pattern: str = "*/*.json", *, as_released: bool = False
) -> list[Conversation]:
    """Read the rows of all files below ``root`` that fit ``pattern``, in the order of their names.

    Args:
        root: folder of the data sets.
        pattern: of the files, from ``root``.
        as_released: accept assistant turns without text, and pass over turns at a row's end, as
            the extension's own code does.

    Raises:
        RecordError: there is no such folder, no file fits, or one of them has a fault.
    """
    paths = prepared_files(root, pattern)
    return [row for path in paths for row in read_dst_rows(path, as_released=as_released)]


def read_dst_rows(path: Path, *, as_released: bool = False) -> list[Conversation]:
    """Read and check a file of rows.

    Args:
        path: ``.json`` with a list of rows or a single one, or ``.jsonl`` with one row a line.
        as_released: accept assistant turns without text, and pass over turns at a row's end, as
            the extension's own code does.

    Raises:
        RecordError: the file cannot be read, holds no rows, or one of them has a fault.
    """
    return sound_records(scan(path, partial(check_row, as_released=as_released)))


def is_dst_row(raw: object) -> bool:
    """Whether parsed JSON is meant as a row of the DST extension, not as one of our records.

    Turns of rows name their frame, those of records stand between turns with role ``frames``.
    """
    if not isinstance(raw, dict):
        return False
    turns = raw.get("conversation")
    turns = [t for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    if any(turn.get("role") == "frames" for turn in turns):
        return False
    if any(turn.get("role") == "DST_UPDATE" or "start_frame" in turn for turn in turns):
        return True
    return "dst" in raw or (not turns and isinstance(raw.get("events"), list))


def row_to_conversation(raw: object, where: str, *, as_released: bool = False) -> Conversation:
    """Check one row and make a conversation of it.

    Args:
        raw: parsed JSON of the row; stays as it is.
        where: ``file:line`` of the row, or ``file[i]``; opens every message.
        as_released: accept assistant turns without text (``write_records`` refuses them), and pass
            over turns at the row's end, as the extension's own code does.

    Raises:
        RecordError: the first fault; names the row and its turn or event.
    """
    checked = check_row(raw, where, as_released=as_released)
    if isinstance(checked, list):
        raise checked[0]
    return checked


def check_row(raw: object, where: str, *, as_released: bool = False) -> Checked:
    """The conversation of a row, or every fault; arguments as of ``row_to_conversation``."""
    faults: list[RecordError] = []
    record = row_to_record(Fields(raw, where, faults), raw, as_released=as_released)
    if faults:
        return faults
    empty: dict[int, str] = {}
    for turn in record["conversation"]:
        if turn["role"] == "assistant" and not turn["content"].strip():
            empty[turn[SOURCE_TURN]] = turn["content"]
            turn["content"] = "..."  # for the checks of records only
    checked = check_record(record, where)
    if isinstance(checked, list):
        return checked
    return replace(checked, turns=tuple(
        replace(turn, content=empty[turn.extra[SOURCE_TURN]])
        if isinstance(turn, AssistantTurn) and turn.extra[SOURCE_TURN] in empty else turn
        for turn in checked.turns
    ))  # fmt: skip


def conversation_to_row(conversation: Conversation) -> dict[str, Any]:
    """The row again: equal to the one that was read, but for what was changed since.

    Raises:
        RecordError: the conversation was not made of such a row, or has not all of its turns, or
            others.
    """
    where = conversation.source or conversation.id
    source = row_source(conversation.metadata)
    if source is None:
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
    return {**restored(write_row(record), source["row"]), key: items}


SOURCE = PreparedSource(
    files="prepared ProAssist data",
    read=read_dst,
    read_as_released=partial(read_dst, as_released=True),
)
