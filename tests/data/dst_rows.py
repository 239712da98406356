"""Rows of the DST extension: sound ones, changes of them, and one for every fault."""

from __future__ import annotations

import json

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)


def row(**changes) -> dict:
    """A valid row with turns; ``None`` removes a key."""
    made = {
        "video_uid": "v1",
        "dataset": "wtag",
        "clip_idx": 1,
        "fps": 2,
        "num_tokens_per_img": 1,
        "frames_file": "data/wtag/frames/v1.arrow",
        "start_frame_idx": 10,
        "end_frame_idx": 30,
        "inferred_goal": "Making soup",
        "inferred_knowledge": "Making soup\n1. Cut.",
        "video_labels": {},
        "quality": 3.5,
        "seq_len": 818,
        "max_seq_len": 4096,
        "dst": [
            {"type": "step", "id": "S1", "start_ts": 5.2, "end_ts": 9.0, "name": "Cut."},
            {"type": "step", "id": "S2", "name": "Stir."},
        ],
        "conversation": [
            {"role": "system", "content": "Help.", "start_frame": 0, "end_frame": 1},
            {
                "role": "DST_UPDATE",
                "content": [{"id": "S1", "transition": "start"}],
                "time": 5.2,
                "start_frame": 10,
                "end_frame": 12,
                "dst_state": {"S1": "not_started"},
                "labels": "initiative|dst_update",
            },
            {"role": "user", "content": "Soup?", "time": 5.2, "start_frame": 10, "end_frame": 12},
            {"role": "assistant", "content": "Cut.", "time": 5.4, "start_frame": 10, "labels": "x"},
            {"role": "system", "content": "Now loud.", "start_frame": 14},
            {"role": "assistant", "content": "Stir.", "start_frame": 17, "speaking": 0},
            {"role": "DST_UPDATE", "content": "S1->complete; S2->start", "start_frame": 17},
            {"role": "user", "content": "Thanks.", "start_frame": 29, "end_frame": 31},
        ],
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def with_turn(i: int, **changes) -> dict:
    """The valid row with turn ``i`` changed; ``...`` removes a key."""
    made = row()
    turn = {**made["conversation"][i], **changes}
    made["conversation"][i] = {key: value for key, value in turn.items() if value is not ...}
    return made


def sparse(*events, **changes) -> dict:
    return row(conversation=None, events=list(events), **changes)


EVENTS = sparse(
    {
        "frame_idx": 10,
        "speaking": 1,
        "dst_update": 1,
        "dst_updates": ["S1->start"],
        "response": "A",
    },
    {"frame": 12, "speaking": 0, "dst_update": 1, "dst": [{"id": "S1", "transition": "complete"}]},
    {"frame_idx": 12, "speaking": 1, "dst_update": 0, "dst_updates": [], "response": "Well done."},
    {"frame_idx": 13, "speaking": 0, "dst_update": 0, "dst_updates": [], "response": None},
    {"start_frame": 14, "role": "user", "content": "What now?"},
    {"frame_idx": 15, "dst": "S2->start", "response": "Stir.", "time": 7.5, "other": [1]},
    {"frame_idx": 16, "speaking": 0, "response": "unsaid"},
)


def same(a: object, b: object) -> bool:
    """Equal as JSON: 1, 1.0 and true differ."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def told(conversation: Conversation) -> list[str]:
    """The turns, one short text each."""
    out = []
    for turn in conversation.turns:
        match turn:
            case FramesTurn():
                out.append(f"{turn.start}-{turn.end}")
            case DstTurn():
                out.append(";".join(map(str, turn.updates)))
            case SystemTurn() | UserTurn() | AssistantTurn():
                out.append(f"{type(turn).__name__[0]} {turn.content}")
    return out


# What is wrong, and what the message must say besides the row. A turn's index is the source's.
FAULTS = {
    "no object": ([], r"expected a JSON object .* got \[\]"),
    "no turns": (row(conversation=None), r"the key 'conversation' is missing; add it"),
    "turns no list": (row(conversation="a"), r"'conversation' must be a list, got 'a'"),
    "events no list": (sparse() | {"events": 1}, r"'events' must be a list, got 1"),
    "no span": (row(end_frame_idx=None), r"the key 'end_frame' is missing; add it"),
    "empty span": (row(end_frame_idx=10), r"no frames: start_frame_idx 10, end_frame_idx 10 .*cor"),
    "no video": (row(video_uid=None), r"the key 'video_uid' is missing"),
    "short name": (row(dataset="assembly101"), r"'v1' of assembly101: the name has no '_'.*give"),
    "fps zero": (row(fps=0), r"'fps' must be a finite number > 0, got 0; correct"),
    "turn no object": (row(conversation=["a"]), r"turn 0: expected a JSON object"),
    "role unknown": (with_turn(1, role="DST"), r"turn 1: unknown role 'DST'; did you mean 'DST"),
    "role frames": (with_turn(1, role="frames"), r"turn 1: unknown role 'frames'"),
    "no content": (with_turn(3, content=...), r"turn 3: the key 'content' is missing"),
    "empty content": (with_turn(3, content=""), r"turn 3: 'content' is empty; write"),
    "no frame": (with_turn(3, start_frame=...), r"turn 3: the key 'start_frame' is missing; add"),
    "late system without": (with_turn(4, start_frame=...), r"turn 4: the key 'start_frame' is mi"),
    "frame a float": (with_turn(3, start_frame=1.5), r"turn 3: 'start_frame' must be an integer"),
    "past the end": (with_turn(7, start_frame=30), r"turn 7: is at frame 30, past the end: .* last "
                     r"frame is 29 \(end_frame_idx 30 is exclusive\)\. Correct"),
    "system past the end": (with_turn(4, start_frame=31), r"turn 4: is at frame 31, past the end"),
    "before the start": (with_turn(2, start_frame=9), r"turn 2: is at frame 9, before .* frame 10"),
    "times go back": (with_turn(5, time=5.0), r"turn 5: its time 5.0 s is before 5.4 s of an ea"),
    "time a text": (with_turn(3, time="5"), r"turn 3: 'time' must be a number, got '5'"),
    "labels a list": (with_turn(3, labels=["a"]), r"turn 3: 'labels' must be a string"),
    "flag 2": (with_turn(3, speaking=2), r"turn 3: 'speaking' must be 0 or 1, got 2; correct"),
    "flag a text": (with_turn(3, dst_update="1"), r"turn 3: 'dst_update' must be 0 or 1, got '1'"),
    "no updates": (with_turn(1, content=[]), r"turn 1: 'content' is empty; list what changed"),
    "updates a number": (with_turn(1, content=3), r"turn 1: 'content' must be a list, got 3"),
    "update a number": (with_turn(1, content=[3]), r"turn 1: update: expected a JSON object"),
    "unknown transition": (with_turn(1, content=[{"id": "S1", "transition": "begin"}]),
                           r"turn 1: update: unknown transition 'begin'; did you mean"),
    "update unreadable": (with_turn(6, content="S1 begins"), r"turn 6: 'content' holds 'S1 begins'"
                          r", which is no update; write each as 'S1->start'"),
    "update empty": (with_turn(6, content=["S1->start", " "]), r"turn 6: 'content' holds an empty"),
    "unknown step": (with_turn(6, content="S9->start"), r"turn 6: updates the unknown step 'S9'; kn"
                     r"own: \['S1', 'S2'\]\. Correct"),
    "step without name": (row(dst=[{"id": "S1"}]), r"dst entry 0: the key 'name' is missing"),
    "steps twice": (row(dst=[{"id": "S1", "name": "a"}] * 2), r"dst entry 1: the id 'S1' is that "),
    "steps no list": (row(dst="S1"), r"'dst' must be a list, got 'S1'"),
    "step id odd": (row(dst=[{"id": "S1.1", "name": "a"}], conversation=[]), r"step 0: the id 'S1.1"
                    r"' must be letters and digits"),
    "state unknown": (with_turn(1, dst_state={"S1": "done"}), r"turn 1: dst_state: unknown state"),
    "state of no step": (with_turn(1, dst_state={"S7": "completed"}), r"dst_state: unknown step "),
    "state no object": (with_turn(1, dst_state="S1"), r"turn 1: dst_state: expected a JSON object"),
    "event past the end": (sparse({"frame_idx": 30}), r"event 0: is at frame 30, past the end"),
    "event without frame": (sparse({"response": "a"}), r"event 0: the key 'frame_idx' is missing"),
    "event says nothing": (sparse({"frame": 12, "speaking": 1}), r"event 0: the key 'response' "),
    "event changes nothing": (sparse({"frame": 12, "dst_update": 1, "dst": []}),
                              r"event 0: .*'dst_updates' .*missing"),
    "event's step unknown": (sparse({"frame": 12, "dst": ["S9->start"]}), r"event 0: updates the "),
}  # fmt: skip
