"""Lines of a prepared file, as they are written, and of the terminal, as they are read."""

from __future__ import annotations

import json

import pytest

Captured = pytest.CaptureFixture[str]


def record(**changed: object) -> str:
    fields = {
        "dataset": "d", "video_uid": "v", "clip_idx": 0, "frames_file": "v.safetensors",
        "fps": 2.0, "num_tokens_per_img": 1, "start_frame_idx": 0, "end_frame_idx": 2,
        "conversation": [{"role": "frames", "start": 0, "end": 2}], "metadata": {},
    }  # fmt: skip
    return json.dumps(fields | changed) + "\n"


def error(capsys: Captured) -> str:
    """The one line of error."""
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err
