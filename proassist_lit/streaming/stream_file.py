"""Answered streams on disk: ``streams/*.json``, a list with one object per frame.

What is said of a stream as a whole stands in an index beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proassist_lit.atomic import write_text
from proassist_lit.errors import StreamError
from proassist_lit.types import (
    FrameOutput,
    Reference,
    StepState,
    Transcript,
    Transition,
    Update,
)


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
        "ref_kinds": list(reference.kinds),
        "ref_is_summary": reference.is_summary,
        "speak_label": reference.speak_label,
        "dst_label": reference.dst_label,
        "supervised": reference.supervised,
        "user_text": frame.user_text,
        "context_len": frame.context_len,
        "event": frame.event,
    }


def write_stream(path: Path, transcript: Transcript) -> None:
    """Write an answered stream, atomically."""
    pairs = zip(transcript.frames, transcript.references, strict=True)
    _write_rows(path, [frame_to_json(frame, reference) for frame, reference in pairs])


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A list with one object a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")


def write_index(path: Path, streams: Iterable[tuple[str, Path, Transcript]]) -> None:
    """Write which streams there are, atomically.

    Args:
        path: the index; the files are named relative to its folder.
        streams: split, file and transcript of each.
    """
    rows = [
        {
            "file": file.relative_to(path.parent).as_posix(),
            "split": split,
            "stream_id": transcript.stream_id,
            "dataset": transcript.dataset,
            "fps": transcript.fps,
            "steps": [list(step) for step in transcript.steps],
        }
        for split, file, transcript in streams
    ]
    write_text(
        path, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    )


def read_streams(index: Path) -> dict[str, list[Transcript]]:
    """Answered streams by split, in the order of the index.

    Raises:
        StreamError: the index or a file cannot be read; the message names it.
    """
    out: dict[str, list[Transcript]] = {}
    for row in _read_json(index, "run the evaluation again (proassist-lit evaluate RUN --out RUN)"):
        out.setdefault(row["split"], []).append(_read_stream(index.parent / row["file"], row))
    return out


def _read_stream(path: Path, about: Mapping[str, Any]) -> Transcript:
    frames, references = [], []
    rows = _read_json(path, "evaluate its run again, or take it out of the index")
    for number, row in enumerate(rows):
        try:
            frames.append(_frame(row))
            references.append(_reference(row))
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError(
                f"{path}: frame {number} of the list is not one of an answered stream "
                f"({type(error).__name__}: {error}); evaluate its run again."
            ) from error
    return Transcript(
        stream_id=about["stream_id"],
        dataset=about["dataset"],
        fps=about["fps"],
        steps=tuple((step, name) for step, name in about["steps"]),
        frames=tuple(frames),
        references=tuple(references),
    )


def _read_json(path: Path, remedy: str) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StreamError(f"{path}: cannot be read: {error}; {remedy}.") from error
    if not isinstance(rows, list):
        raise StreamError(f"{path}: holds no list; {remedy}.")
    return rows


def _frame(row: Mapping[str, Any]) -> FrameOutput:
    return FrameOutput(
        frame_idx=row["frame_idx"],
        time_s=row["time_s"],
        speak_prob=row["speak_prob"],
        dst_prob=row["dst_prob"],
        speak=row["speak"],
        dst=row["dst"],
        text=row["text"],
        updates=_read_updates(row["updates"]),
        dst_invalid=row["dst_invalid"],
        state=_read_state(row["state"]),
        user_text=row["user_text"],
        context_len=row["context_len"],
        event=row["event"],
    )


def _reference(row: Mapping[str, Any]) -> Reference:
    return Reference(
        text=row["ref_text"],
        updates=_read_updates(row["ref_updates"]),
        state=_read_state(row["ref_state"]),
        keywords=tuple(row["ref_keywords"]),
        kinds=tuple(row.get("ref_kinds", ())),  # files of older versions have none,
        is_summary=row.get("ref_is_summary", False),  # nor this
        speak_label=row["speak_label"],
        dst_label=row["dst_label"],
        supervised=row.get("supervised", True),
    )


def _read_updates(rows: list[dict[str, str]]) -> tuple[Update, ...]:
    return tuple(Update(row["id"], Transition(row["transition"])) for row in rows)


def _read_state(row: Mapping[str, str]) -> dict[str, StepState]:
    return {step: StepState(state) for step, state in row.items()}


def _updates(updates: tuple[Update, ...]) -> list[dict[str, str]]:
    return [{"id": update.id, "transition": update.transition.value} for update in updates]
