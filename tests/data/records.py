"""A valid record with every kind of turn, changes of it, and where genuine ones are."""

from __future__ import annotations

import os
from pathlib import Path

DATA_DIR = Path(os.environ.get("PROASSIST_DATA_DIR", Path(__file__).parents[3] / "shared/data"))


def record(**changes) -> dict:
    """A valid record with every kind of turn; ``None`` removes a key."""
    made = {
        "dataset": "toy",
        "video_uid": "v1",
        "clip_idx": 0,
        "frames_file": "frames/v1.arrow",
        "fps": 2,
        "num_tokens_per_img": 1,
        "start_frame_idx": 3,
        "end_frame_idx": 12,
        "steps": [{"id": "S1", "name": "cut the carrot"}, {"id": "S2", "name": "stir"}],
        "initial_state": {"S1": "not_started", "S2": "completed"},
        "conversation": [
            {"role": "system", "content": "Help the user."},
            {"role": "frames", "start": 3, "end": 5},
            {"role": "user", "time": 2.4, "content": "I want soup.", "labels": ""},
            {"role": "frames", "start": 5, "end": 6},
            {"role": "dst", "updates": [{"id": "S1", "transition": "start"}], "time": 2.5},
            {
                "role": "assistant",
                "time": 2.5,
                "content": "Cut the carrot.",
                "labels": "initiative|instruction",
                "progress": "Nothing yet.",
                "keywords": ["cut", "carrot"],
            },
            {"role": "frames", "start": 6, "end": 12, "note": [1, {"a": None}]},
        ],
        "metadata": {"user_type": "no_talk", "quality": 9.5},
        "seq_len": 42,
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def with_turn(i: int, **changes) -> dict:
    """The valid record with turn ``i`` changed; ``...`` removes a key."""
    made = record()
    turn = {**made["conversation"][i], **changes}
    made["conversation"][i] = {key: value for key, value in turn.items() if value is not ...}
    return made
