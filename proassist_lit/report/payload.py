"""A run report as compact JSON data: arrays over frames, numbers rounded to what can be seen."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from proassist_lit.report.run_report import RunReport, StreamView, picture_type
from proassist_lit.report.scoreboard import ScoreRow, make_scoreboard, spoken_name
from proassist_lit.report.threshold_data import threshold_data
from proassist_lit.types import DialogueState, StepState, format_updates

MAX_CURVE_POINTS = 1000
"""Longer curves keep the lowest and the highest point of each of half as many stretches."""

_STATE_CODE = {StepState.NOT_STARTED: 0, StepState.IN_PROGRESS: 1, StepState.COMPLETED: 2}


def make_payload(report: RunReport) -> dict[str, Any]:
    """Turn ``report`` into what the page's script reads; every value is valid JSON.

    Source: the reading side is the scripts beside this file; keys are short because a
    report may hold 50 streams.
    """
    board = make_scoreboard(report.metrics, report.earlier, report.earlier_name)
    return {
        "title": report.title,
        "config": report.config_yaml,
        "notes": [[str(name), str(value)] for name, value in report.notes.items()],
        "columns": list(board.columns),
        "split": board.split,
        "earlier": None if report.earlier is None else report.earlier_name or "the earlier run",
        "headline": [_row(row) for row in board.headline],
        "rest": [_row(row) for row in board.rest],
        "settings": [[spoken_name(name), value] for name, value in board.settings],
        "others": [
            [key, value if isinstance(value, str) else _number(value, 9, significant=True)]
            for key, value in board.others
        ],
        "key": [
            {
                "label": spoken_name(result.name),
                "value": _number(result.value, 9, significant=True),
                "baseline": result.baseline,
                "baselineValue": _number(result.baseline_value, 9, significant=True),
                "change": _number(result.change, 9, significant=True),
                "better": result.better,
            }
            for result in board.key_results
        ],
        "thresholds": threshold_data(report),
        "curves": [_curve(name, points) for name, points in report.curves.items() if points],
        "hasWords": report.has_words,
        "streams": [_stream(view) for view in report.streams],
    }


def _row(row: ScoreRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": spoken_name(row.name),
        "values": [_number(value, 9, significant=True) for value in row.values],
        "best": [int(best) for best in row.best],
        "earlier": _number(row.earlier, 9, significant=True),
        "change": _number(row.change, 9, significant=True),
        "better": row.better,
    }


def _curve(name: str, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    kept = _thinned(points)
    return {
        "name": name,
        "steps": [int(step) for step, _ in kept],
        "values": [_number(value, 5, significant=True) for _, value in kept],
        "count": len(points),
    }


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most ``MAX_CURVE_POINTS`` points; spikes and gaps (not a number) stay visible."""
    if len(points) <= MAX_CURVE_POINTS:
        return list(points)
    num_stretches = MAX_CURVE_POINTS // 2
    kept: list[tuple[int, float]] = []
    for k in range(num_stretches):
        stretch = points[k * len(points) // num_stretches : (k + 1) * len(points) // num_stretches]
        finite = [p for p in stretch if math.isfinite(p[1])]
        extremes = {min(finite, key=_value), max(finite, key=_value)} if finite else {stretch[0]}
        kept.extend(sorted(extremes))
    return kept


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _stream(view: StreamView) -> dict[str, Any]:
    transcript = view.transcript
    frames, references = transcript.frames, transcript.references
    position = {frame.frame_idx: i for i, frame in enumerate(frames)}
    first = frames[0].frame_idx if frames else 0
    has_dst = any(frame.dst_prob is not None for frame in frames)

    gen_marks: dict[int, list[Any]] = {position[i]: ["redundant", -1, None] for i in view.redundant}
    ref_marks: dict[int, list[Any]] = {position[i]: ["missed", -1, None] for i in view.missed}
    for gen, ref, semantic in view.matched:
        mark = "matched" if semantic >= view.semantic_threshold else "mismatched"
        gen_marks[position[gen]] = [mark, position[ref], _number(semantic, 3)]
        ref_marks[position[ref]] = [mark, position[gen], _number(semantic, 3)]

    return {
        "id": transcript.stream_id,
        "dataset": transcript.dataset,
        "split": view.split,
        "fps": transcript.fps,
        "n": len(frames),
        "first": first,
        "frames": None
        if all(frame.frame_idx == first + i for i, frame in enumerate(frames))
        else [frame.frame_idx for frame in frames],
        "thetaSpeak": _number(view.theta_speak, 4),
        "thetaDst": _number(view.theta_dst, 4),
        "rendered": int(view.rendered),
        "speakProb": [_number(frame.speak_prob, 4) for frame in frames],
        "dstProb": [_number(frame.dst_prob, 4) for frame in frames] if has_dst else None,
        "speakAt": [i for i, frame in enumerate(frames) if frame.speak],
        "dstAt": [i for i, frame in enumerate(frames) if frame.dst],
        "gen": [
            [i, frame.text, *gen_marks.get(i, ["unscored", -1, None])]
            for i, frame in enumerate(frames)
            if frame.text or frame.speak
        ],
        "ref": [
            [i, reference.text, *ref_marks.get(i, ["unscored", -1, None])]
            for i, reference in enumerate(references)
            if reference.text
        ],
        "user": [[i, frame.user_text] for i, frame in enumerate(frames) if frame.user_text],
        "genUpdates": [
            [i, format_updates(frame.updates), frame.dst_invalid]
            for i, frame in enumerate(frames)
            if frame.updates or frame.dst_invalid or frame.dst
        ],
        "refUpdates": [
            [i, format_updates(reference.updates)]
            for i, reference in enumerate(references)
            if reference.updates
        ],
        "steps": [[step_id, name] for step_id, name in transcript.steps],
        "genStates": _state_runs([step for step, _ in transcript.steps], (f.state for f in frames)),
        "refStates": _state_runs(
            [step for step, _ in transcript.steps], (r.state for r in references)
        ),
        "contextSteps": _differences([frame.context_len for frame in frames]),
        "events": [[i, frame.event] for i, frame in enumerate(frames) if frame.event],
        "film": [
            [i, f"data:{picture_type(picture)};base64,{base64.b64encode(picture).decode('ascii')}"]
            for i, picture in sorted(view.filmstrip, key=lambda item: item[0])
        ],
    }


def _state_runs(step_ids: Sequence[str], states: Iterable[DialogueState]) -> list[list[list[int]]]:
    """Per step, [first frame, state code] of every stretch of equal state; unknown is -1."""
    runs: dict[str, list[list[int]]] = {step_id: [] for step_id in step_ids}
    for i, state in enumerate(states):
        for step_id, step_runs in runs.items():
            code = _code(state, step_id)
            if not step_runs or step_runs[-1][1] != code:
                step_runs.append([i, code])
    return list(runs.values())


def _code(state: Mapping[str, StepState], step_id: str) -> int:
    known = state.get(step_id)
    return -1 if known is None else _STATE_CODE[known]


def _differences(values: Sequence[int]) -> list[int]:
    """First value, then the change at every next one: the same small number again and again."""
    return [value - before for before, value in zip([0, *values], values, strict=False)]


def _number(value: float | None, digits: int, *, significant: bool = False) -> float | int | None:
    """Round for the page; None for what JSON cannot say (nan, infinity)."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}") if significant else round(float(value), digits)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
