"""Where the turns of a DST row stand among its frames: what is fed before a frame, what after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proassist_lit.data.sources.dst_turns import Item


def check_frames(items: Sequence[Item], start: int, end: int, end_key: str) -> list[Item]:
    """Everything happens at a frame of the row, but for the system turns that open it.

    Returns:
        The items of which that is true; of the others a fault is noted.
    """
    only_system = True
    right = []
    for item in items:
        only_system = only_system and item.is_system
        if item.frame is None:
            fault = "" if only_system else (
                "the key 'start_frame' is missing; add it, since only the system turns that "
                "open a row go without"
            )  # fmt: skip
        elif item.frame < start and not item.is_system:
            fault = (
                f"is at frame {item.frame}, before the row's first frame {start}; only system "
                "turns may be. Correct one of them"
            )
        elif item.frame >= end:
            fault = (
                f"is at frame {item.frame}, past the end: the row's last frame is {end - 1} "
                f"({end_key} {end} is exclusive). Correct one of them, or drop it"
            )
        else:
            fault = ""
        if fault:
            item.fields.fault(fault)
        else:
            right.append(item)
    return right


def at_the_end(item: Item, end: int, *, counts_end: bool) -> bool:
    """Whether the extension put it at a row's very end, where no frame is left for it.

    Its input style ``proassist`` lets a turn begin where the one before ended, so that the last of
    several at one time begins and ends with the row. Of sparse events it writes the first of both
    frames only, and counts the end among the row's frames.

    Args:
        item: a turn or event.
        end: one past the row's last frame.
        counts_end: ``num_total_frames`` of the row counts its end.
    """
    raw = item.raw if isinstance(item.raw, dict) else {}
    return item.frame == end and (raw["end_frame"] == end if "end_frame" in raw else counts_end)


def in_order(items: Sequence[Item], start: int, end: int) -> list[dict[str, Any]]:
    """The turns in the order in which they are fed, all frames watched between them.

    A time that does not fit the order of the turns at one frame is taken from its turn.
    """
    places = []
    for item in items:
        frame = -1 if item.frame is None or item.opens(start) else item.frame
        for turn in item.turns:
            after = {"dst": 1, "assistant": 2}.get(turn["role"], 0)
            places.append((frame, after, item, turn))
    places.sort(key=lambda place: place[:2])  # stable: equals stay as the source orders them
    turns: list[dict[str, Any]] = []
    watched = start
    last_s, last_frame = 0.0, -1
    for frame, after, item, turn in places:
        until = frame + bool(after)
        if until > watched:
            turns.append({"role": "frames", "start": watched, "end": until})
            watched = until
        time_s = turn.get("time")
        if time_s is not None and time_s >= last_s:
            last_s, last_frame = time_s, frame
        elif time_s is not None and frame == last_frame:
            del turn["time"]  # not wrong: it is we who moved the turn
        elif time_s is not None:
            item.fields.fault(
                f"its time {time_s} s is before {last_s} s of an earlier frame; times never "
                "decrease: correct the time or the frame"
            )
        turns.append(turn)
    if watched < end:
        turns.append({"role": "frames", "start": watched, "end": end})
    return turns
