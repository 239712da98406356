"""Annotations of two short recordings, in the files of CaptainCook4D's authors."""

from __future__ import annotations

import json
from pathlib import Path

STEPS = "annotation_json/complete_step_annotations.json"
ERRORS = "annotation_json/error_annotations.json"
SPLIT = "data_splits/recordings_data_split_combined.json"
VIDEOS = "metadata/video_information.csv"
GRAPH = "task_graphs/hotsoup.json"

PEEL, CUT, STIR = "Peel-Peel 1 carrot", "Cut -Cut the carrot with a knife", "Stir-Stir the soup"
SALT = "Add-1/2 tsp salt to the pan"

# (step_id, description, start, end, errors)
Row = tuple[int, str, float, float, list[tuple[str, str]]]
RECORDINGS: dict[str, list[Row]] = {
    "1_1": [
        (7, PEEL, 2.0, 10.0, []),
        (3, CUT, 12.0, 22.0, [("Technique Error", "Cut in uneven pieces.")]),
        (9, STIR, 24.0, 28.0, []),
        (5, SALT, 26.0, 30.0, []),
        (9, STIR, 40.0, 50.0, [("Timing Error", "stir too long")]),
    ],
    "1_2": [
        (3, CUT, 1.0, 11.0, [("Order Error", "Step performed before peeling"), ("Other", "odd")]),
        (7, PEEL, 13.0, 17.0, []),
        (5, SALT, -1.0, -1.0, [("Missing Step", "Skipped this step")]),
        (9, STIR, 20.0, 22.0, []),
        (9, STIR, 24.0, 26.0, []),
        (9, STIR, 28.0, 30.0, []),
    ],
}
NODES = {"0": "START", "1": STIR, "2": CUT, "3": PEEL, "4": STIR, "10": SALT, "11": "END"}
EDGES = [[0, 3], [3, 2], [2, 1], [1, 10], [10, 4], [4, 11]]


def files() -> dict:
    """Content of the authors' files, as parsed JSON (text for the table)."""
    steps, errors = {}, []
    for name, rows in RECORDINGS.items():
        keys = ("step_id", "description", "start_time", "end_time")
        plain = [dict(zip(keys, row[:4], strict=True)) for row in rows]
        steps[name] = {
            "recording_id": name,
            "activity_id": 1,
            "activity_name": "Hot Soup",
            "person_id": 3,
            "steps": [{**p, "has_errors": bool(r[4])} for p, r in zip(plain, rows, strict=True)],
        }
        annotated = []
        for p, row in zip(plain, rows, strict=True):
            listed = [{"tag": tag, "description": text} for tag, text in row[4]]
            annotated.append({**p, "errors": listed} if listed else p)
        errors.append({"recording_id": name, "is_error": True, "step_annotations": annotated})
    return {
        STEPS: steps,
        ERRORS: errors,
        SPLIT: {"train": ["1_1"], "val": ["1_2"]},
        VIDEOS: "recording_id,environment_id,duration(min),duration(sec)\n1_1,2,1.00,60.0\n",
        GRAPH: {"steps": NODES, "edges": EDGES},
    }


def write(root: Path, content: dict) -> Path:
    for name, value in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return root
