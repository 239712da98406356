"""One turn or event of a row of the DST extension, as turns of a record, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proassist_lit.data.record_checks import Fields, show
from proassist_lit.types import Transition, Update, format_updates, parse_updates

ROLES = ("system", "user", "assistant", "DST_UPDATE")
"""The roles of turns; an event may have one, too."""

FLAGS = ("speaking", "dst_update")
"""Labels that a source may give beside the role: 0 or 1."""

SOURCE_TURN = "source_turn"
"""Key of a record's turn: the number of the source's turn or event that it was made of."""

_EVENT_FRAMES = ("frame_idx", "frame", "start_frame")  # how an event may name its frame
_EVENT_UPDATES = ("dst_updates", "dst")  # how an event may name its updates


@dataclass(frozen=True)
class Item:
    """A turn or event of the source, read.

    Attributes:
        fields: takes notes of further faults, under the item's place.
        frame: where it happens; None for a system turn that names no frame.
        is_system: it is a system turn.
        turns: the turns of a record that it makes, each with ``source_turn``; none for an event
            at which nothing happens.
        style: how its updates are written, see ``write_item``.
        raw: the turn or event itself.
        state: its ``dst_state``, unchecked: the state before it.
        is_sound: no fault was found in it by itself.
    """

    fields: Fields
    frame: int | None
    is_system: bool
    turns: list[dict[str, Any]]
    style: dict[str, Any]
    raw: object
    state: object
    is_sound: bool

    def opens(self, start: int) -> bool:
        """Whether it is a system turn that opens a row whose first frame is ``start``."""
        return self.is_system and (self.frame is None or self.frame <= start)

    def layout(self) -> dict[str, Any]:
        """All that its turns do not say of it: what ``write_item`` needs to write it again."""
        raw = self.raw if isinstance(self.raw, dict) else {}
        rest = difference(raw, _write(self.turns, self.style))
        return {**self.style, "num_turns": len(self.turns), **rest}

    @property
    def updated_steps(self) -> list[str]:
        """Ids of the steps that it updates."""
        return [update["id"] for turn in self.turns for update in turn.get("updates", ())]


def read_item(
    fields: Fields, raw: object, number: int, *, is_event: bool, as_released: bool
) -> Item:
    """Check a turn or event; its faults are noted in ``fields``.

    Explicit flags win over what is there: an event with ``speaking: 0`` is silent whatever its
    ``response``. A turn keeps its flags in ``extra``, for those who make labels of it.

    Args:
        fields: the keys of ``raw``.
        raw: the turn or event.
        number: its place in the row.
        is_event: it comes from the sparse ``events``; one with a role is read like a turn.
        as_released: accept assistant text that is empty.
    """
    state = fields.rest().get("dst_state")
    num_faults = fields.num_faults
    if not isinstance(raw, dict):  # noted
        num_faults = -1
    if is_event and not fields.has("role"):
        turns, style = _read_event(fields, as_released)
        is_system = False
    else:
        turns, style = _read_turn(fields, as_released)
        is_system = turns[0]["role"] == "system"
    keys = _EVENT_FRAMES if is_event else ("start_frame",)
    key = next((key for key in keys if fields.has(key)), keys[0])
    frame = fields.index(key) if fields.has(key) or not is_system else None
    for turn in turns:
        turn[SOURCE_TURN] = number
    is_sound = fields.num_faults == num_faults
    return Item(fields, frame, is_system, turns, style, raw, state, is_sound)


def write_item(turns: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> dict[str, Any]:
    """The turn or event again.

    Args:
        turns: the record's turns that were made of it.
        layout: ``style`` of its updates and their ``key`` (empty for turns), and what
            ``difference`` found.
    """
    return restored(_write(turns, layout), layout)


def difference(raw: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """What ``raw`` has beside ``written``: values that are not the same, and keys it lacks.

    Compared as JSON: 1, 1.0 and true are three values.
    """
    kept = {k: v for k, v in raw.items() if k not in written or _text(v) != _text(written[k])}
    return {"kept": kept, "absent": [key for key in written if key not in raw]}


def restored(written: Mapping[str, Any], layout: Mapping[str, Any]) -> dict[str, Any]:
    """The object that ``difference`` compared with ``written``; later changes are kept."""
    left = {key: value for key, value in written.items() if key not in layout["absent"]}
    return {**left, **layout["kept"]}


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _read_turn(fields: Fields, as_released: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The one turn that a turn makes, and how its updates are written."""
    num_faults = fields.num_faults
    role = fields.choice("role", ROLES)
    if fields.num_faults > num_faults:  # what else it should hold depends on the role
        return [{"role": "system", "content": ""}], {"key": "", "style": ""}
    if role == "DST_UPDATE":
        updates, style = _read_updates(fields, "content")
        made: dict[str, Any] = {"role": "dst", "updates": updates}
    else:
        made = {"role": role, "content": _read_words(fields, role, "content", as_released)}
        style = ""
    made |= _read_rest(fields, speaks=role == "assistant")
    return [made], {"key": "", "style": style}


def _read_event(fields: Fields, as_released: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The turns that an event makes: its updates, then what is said."""
    key = next((key for key in _EVENT_UPDATES if fields.has(key)), _EVENT_UPDATES[0])
    has_updates, has_words = fields.rest().get(key), fields.rest().get("response")
    rest = _read_rest(fields, speaks=bool(has_words))
    common = {key: value for key, value in rest.items() if key in ("time", *FLAGS)}
    turns, style = [], ""
    if rest.get("dst_update", has_updates):
        updates, style = _read_updates(fields, key)
        turns.append({"role": "dst", "updates": updates, **common})
    if rest.get("speaking", has_words):
        words = _read_words(fields, "assistant", "response", as_released)
        turns.append({"role": "assistant", "content": words, **rest})
    return turns, {"key": key, "style": style}


def _read_words(fields: Fields, role: str, key: str, as_released: bool) -> str:
    may_be_empty = as_released and role == "assistant"
    if may_be_empty and not fields.has(key):
        return ""  # null, or not there
    return fields.text(key, may_be_empty=may_be_empty)


def _read_rest(fields: Fields, *, speaks: bool) -> dict[str, Any]:
    """What a record knows of a turn beside its words: time, flags, and of assistant turns more."""
    made: dict[str, Any] = {}
    if fields.has("time"):
        made["time"] = fields.number("time")
    for key in ("labels", "progress") if speaks else ():
        if fields.has(key):
            made[key] = fields.text(key, may_be_empty=True)
    if speaks and fields.has("keywords"):
        made["keywords"] = list(fields.words("keywords"))
    for key in FLAGS:
        if fields.has(key):
            value = fields.rest().pop(key)
            if not isinstance(value, int) or value not in (0, 1):
                fields.fault(f"{key!r} must be 0 or 1, got {show(value)}; correct it")
            made[key] = value
    return made


def _read_updates(fields: Fields, key: str) -> tuple[list[dict[str, str]], str]:
    """Updates in any of their three styles: text, a list of texts, a list of objects."""
    value = fields.rest().get(key)
    if isinstance(value, str):
        return _parse_text(fields, key, fields.text(key)), "text"
    items = fields.items(key)
    if value == []:
        fields.fault(f"{key!r} is empty; list what changed, or remove the update")
    if items and all(isinstance(item, str) for item in items):
        return [update for item in items for update in _parse_text(fields, key, item)], "texts"
    updates = []
    for raw in items:
        update = fields.inner(raw, "update")
        transition = update.choice("transition", [t.value for t in Transition])
        updates.append({"id": update.text("id"), "transition": transition})
    return updates, "objects"


def _parse_text(fields: Fields, key: str, text: str) -> list[dict[str, str]]:
    updates, num_invalid = parse_updates(text)
    if text.strip() and (num_invalid or not updates):
        fields.fault(
            f"{key!r} holds {show(text)}, which is no update; write each as 'S1->start' or "
            "'S1->complete', with ';' between them"
        )
    elif not text.strip():
        fields.fault(f"{key!r} holds an empty text; write 'S1->start', or remove it")
    return [{"id": update.id, "transition": update.transition.value} for update in updates]


def _write(turns: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> dict[str, Any]:
    """What the turns say of the item they were made of."""
    out: dict[str, Any] = {}
    is_event = bool(layout["key"])
    for turn in turns:
        words, updates = ("response", layout["key"]) if is_event else ("content", "content")
        out |= {k: v for k, v in turn.items() if k not in ("role", "content", "updates")}
        if turn["role"] == "dst":
            out[updates] = _write_updates(turn["updates"], layout["style"])
        else:
            out[words] = turn["content"]
        if not is_event:
            out["role"] = "DST_UPDATE" if turn["role"] == "dst" else turn["role"]
    out.pop(SOURCE_TURN, None)
    return out


def _write_updates(raw_updates: Sequence[Mapping[str, str]], style: str) -> object:
    if style == "objects":
        return [dict(update) for update in raw_updates]
    updates = [Update(raw["id"], Transition(raw["transition"])) for raw in raw_updates]
    return format_updates(updates) if style == "text" else [str(update) for update in updates]
