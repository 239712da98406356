"""A row of the DST extension as the JSON of a conversation record, every fault noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from proassist_lit.data.record_checks import Fields, nearest, show
from proassist_lit.data.sources.dst_order import at_the_end, check_frames, in_order
from proassist_lit.data.sources.dst_turns import Item, difference, read_item
from proassist_lit.data.sources.proassist import frames_file
from proassist_lit.errors import RecordError
from proassist_lit.types import StepState

FPS = 2
"""Frames per second of a row that does not say."""

DATASET = "dst"
"""Name of the data set of a row that does not say."""

_STATES = [state.value for state in StepState]


def row_to_record(row: Fields, raw: object, *, as_released: bool) -> dict[str, Any]:
    """The row as the JSON of a record.

    Args:
        row: the keys of ``raw``; takes note of every fault.
        raw: the row; stays as it is.
        as_released: accept assistant turns without text, and pass over what stands at the row's
            end, as the extension's own code does.

    Returns:
        The record; of no use if faults were noted.
    """
    if not isinstance(raw, dict):  # noted by `row`
        return {}
    is_sparse = "events" in raw and not row.has("conversation")
    start_key, end_key = (
        f"{end}_frame_idx" if row.has(f"{end}_frame_idx") else f"{end}_frame"
        for end in ("start", "end")
    )
    num_faults = row.num_faults
    start, end = row.index(start_key), row.index(end_key, minimum=1)
    if end <= start and row.num_faults == num_faults:
        row.fault(
            f"holds no frames: {start_key} {start}, {end_key} {end} (exclusive); correct them"
        )
    has_span = row.num_faults == num_faults
    name = "event" if is_sparse else "turn"
    items = [
        read_item(row.inner(r, f"{name} {i}"), r, i, is_event=is_sparse, as_released=as_released)
        for i, r in enumerate(row.items("events" if is_sparse else "conversation"))
    ]
    steps = _steps(row, items)
    initial_state = _initial_state(items, list(steps)) if steps else {}
    if has_span:
        counts_end = is_sparse and raw.get("num_total_frames") == end - start + 1
        items = [
            # The extension's own code never comes to it; here it happens at the last frame.
            replace(item, frame=end - 1, turns=[] if as_released else item.turns)
            if item.is_sound and at_the_end(item, end, counts_end=counts_end)
            else item
            for item in items
        ]
    # A turn that is wrong by itself says nothing about the others.
    placed = check_frames([i for i in items if i.is_sound], start, end, end_key) if has_span else []
    turns = in_order(placed, start, end)
    num_faults = row.num_faults
    dataset = row.text("dataset") if row.has("dataset") else DATASET
    video_uid = row.text("video_uid")
    has_names = row.num_faults == num_faults
    record: dict[str, Any] = {
        "dataset": dataset,
        "video_uid": video_uid,
        "clip_idx": row.index("clip_idx") if row.has("clip_idx") else 0,
        "frames_file": _frames_file(row, dataset, video_uid) if has_names else "",
        "fps": row.number("fps", positive=True) if row.has("fps") else FPS,
        "num_tokens_per_img": (
            row.index("num_tokens_per_img", minimum=1) if row.has("num_tokens_per_img") else 1
        ),
        "start_frame_idx": start,
        "end_frame_idx": end,
        "conversation": turns,
        "metadata": dict(raw["metadata"]) if isinstance(raw.get("metadata"), dict) else {},
    }
    if row.num_faults:
        return {}
    if steps:
        record["steps"] = [{"id": step_id, "name": name} for step_id, name in steps.items()]
        record["initial_state"] = initial_state
    left = {
        key: value
        for key, value in raw.items()
        if key != ("events" if is_sparse else "conversation")
    }
    record["metadata"]["source"] = {
        "format": "events" if is_sparse else "turns",
        "row": difference(left, write_row(record)),
        "turns": [item.layout() for item in items],
    }
    return record


def row_source(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What ``metadata`` of a conversation say of the row it was made of; None if of none.

    Metadata are free: other records may say what they like under the same name.
    """
    source = metadata.get("source")
    is_row = isinstance(source, Mapping) and source.get("format") in ("turns", "events")
    return source if is_row else None


def write_row(record: Mapping[str, Any]) -> dict[str, Any]:
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
    """Name of each step by its id; of a row that lists none, the ids that it updates.

    Empty if the list is faulty: updates cannot be held against it.
    """
    known = [step_id for item in items if item.is_sound for step_id in item.updated_steps]
    if not row.has("dst"):
        first = _first_state(items)
        known += list(first.state) if first and isinstance(first.state, dict) else []
        return {step_id: step_id for step_id in sorted(set(known), key=lambda s: (len(s), s))}
    num_faults = row.num_faults
    steps: dict[str, str] = {}
    for i, raw in enumerate(row.items("dst")):
        entry = row.inner(raw, f"dst entry {i}")
        step_id = entry.text("id")
        if step_id in steps:
            entry.fault(
                f"the id {show(step_id)} is that of an earlier entry; number them S1, S2, .."
            )
        steps[step_id] = entry.text("name")
    if row.num_faults > num_faults:
        return {}
    for item in items:
        for step_id in item.updated_steps if item.is_sound else ():
            if step_id not in steps:
                item.fields.fault(
                    f"updates the unknown step {show(step_id)}; known: {show(list(steps))}. "
                    "Correct it, or add the step to 'dst'"
                )
    return steps


def _first_state(items: Sequence[Item]) -> Item | None:
    """The first turn that tells the state before it, if nothing was updated until then.

    What a faulty turn does is not known: none, from there on.
    """
    for item in items:
        if not item.is_sound:
            break
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
    if given.startswith("frames/"):
        return given
    try:
        return frames_file(dataset, video_uid)
    except RecordError as error:
        row.fault(str(error).rstrip("."))
        return ""
