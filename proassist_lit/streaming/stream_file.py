"""Answered streams on disk: ``streams/*.json``, a list with one object per frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proassist_lit.atomic import write_text
from proassist_lit.types import FrameOutput, Reference, Transcript, Update


def frame_to_json(frame: FrameOutput, reference: Reference) -> dict[str, Any]:
    """One row of a stream file."""
    return {
        "frame_idx": frame.frame_idx,
        "time_s": round(frame.time_s, 4),
        "speak_prob": round(frame.speak_prob, 6),
        "dst_prob": None if frame.dst_prob is None else round(frame.dst_prob, 6),
        "speak": frame.speak,
        "dst": frame.dst,
        "text": frame.text,
        "updates": _updates(frame.updates),
        "dst_invalid": frame.dst_invalid,
        "state": {step: state.value for step, state in frame.state.items()},
        "ref_text": reference.text,
        "ref_updates": _updates(reference.updates),
        "ref_state": {step: state.value for step, state in reference.state.items()},
        "ref_keywords": list(reference.keywords),
        "speak_label": reference.speak_label,
        "dst_label": reference.dst_label,
        "user_text": frame.user_text,
        "context_len": frame.context_len,
        "event": frame.event,
    }


def write_stream(path: Path, transcript: Transcript) -> None:
    """Write an answered stream, atomically."""
    rows = [
        json.dumps(frame_to_json(frame, reference), ensure_ascii=False)
        for frame, reference in zip(transcript.frames, transcript.references, strict=True)
    ]
    write_text(path, "[\n" + ",\n".join(rows) + "\n]\n")


def _updates(updates: tuple[Update, ...]) -> list[dict[str, str]]:
    return [{"id": update.id, "transition": update.transition.value} for update in updates]
