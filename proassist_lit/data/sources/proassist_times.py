"""Turns of ProAssist's rows whose time is before that of an earlier turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proassist_lit.data.record_checks import show
from proassist_lit.data.record_parser import check_record
from proassist_lit.data.records import Checked

_MARK = "use_img_sep_token"
"""What every row of ProAssist's own preparation says, and records of ours do not."""


def check_prepared(raw: object, where: str, early: list[str]) -> Checked:
    """Check a record; in a row that ProAssist's code wrote, some times may go back.

    That code spaces out the turns of a dialogue, but never an answer and the words of the user
    before it: the answer's time may be the earlier one, and those of turns soon after it, too. It
    keeps their order and shows one frame before each. Such times are taken from their turns, as
    places among the frames rule; any other time that goes back is a fault, as in our records.

    Args:
        raw: parsed JSON of the record; stays as it is.
        where: ``file:line`` of the record; opens every message.
        early: takes a line for each time that was taken away.

    Source: ``adjust_time`` and ``convert_conversation_time_to_index`` of ProAssist's released code.
    """
    if (
        not isinstance(raw, dict)
        or _MARK not in raw
        or not isinstance(raw.get("conversation"), list)
    ):
        return check_record(raw, where)
    turns: list[Any] = []
    last_s = 0.0
    for i, turn in enumerate(raw["conversation"]):
        time_s: Any = turn.get("time") if isinstance(turn, dict) else None
        if type(time_s) in (int, float) and time_s >= last_s:
            last_s = time_s
        elif type(time_s) in (int, float) and time_s >= 0 and _is_one_frame(turns[-1:]):
            early.append(f"{where}: turn {i}: its time {show(time_s)} s is before {show(last_s)} s")
            turn = {key: value for key, value in turn.items() if key != "time"}
        turns.append(turn)
    return check_record({**raw, "conversation": turns}, where)


def early_times_warning(path: Path, early: list[str]) -> str:
    """What ``check_prepared`` passed over in a file, in one line; empty for nothing."""
    if not early:
        return ""
    several = f"{len(early)} turns have times" if len(early) > 1 else "1 turn has a time"
    return (
        f"{path}: {several} before that of an earlier turn, first at {early[0]}. ProAssist's own "
        "preparation writes some; the turns stay in their order, without these times."
    )


def _is_one_frame(turns: list[Any]) -> bool:
    """Whether these are one turn, of a single frame."""
    match turns:
        case [{"role": "frames", "start": int(start), "end": int(end)}]:
            return end - start == 1
    return False
