"""The annotation files of CaptainCook4D, checked: splits, recordings, their errors and lengths."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proassist_lit.data.record_checks import Fields, load_json, show
from proassist_lit.errors import RecordError
from proassist_lit.types import SPLITS

STEPS_FILE = "annotation_json/complete_step_annotations.json"
ERRORS_FILE = "annotation_json/error_annotations.json"
SPLIT_FILE = "data_splits/recordings_data_split_combined.json"
VIDEO_FILE = "metadata/video_information.csv"

_SECONDS = re.compile(r"\d{1,9}(\.\d*)?", re.ASCII)


@dataclass
class Row:
    """One performance of a step, or the note that it was skipped (no times)."""

    step_id: int
    description: str
    start_s: float | None
    end_s: float | None
    errors: list[tuple[str, str]] = field(default_factory=list)  # (tag, description)

    @property
    def key(self) -> tuple[int, str, float | None, float | None]:
        """What both annotation files must agree on."""
        return self.step_id, self.description, self.start_s, self.end_s

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of a step that was performed, seconds."""
        assert self.start_s is not None
        assert self.end_s is not None
        return self.start_s, self.end_s


@dataclass
class Recording:
    """One recording as it was annotated.

    Attributes:
        name: its id.
        where: file and recording, for messages.
        recipe: what is cooked.
        rows: steps in the order of the file.
        metadata: everything else that is known of it.
    """

    name: str
    where: str
    recipe: str
    rows: list[Row]
    metadata: dict[str, Any]


def load_file(path: Path) -> Any:
    """Parsed JSON of one of the authors' files."""
    return load_json(_read_bytes(path), str(path))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read: {error.strerror or error}. Put the authors' annotation files "
            "there, in their own layout."
        ) from error


def read_splits(path: Path) -> dict[str, list[str]]:
    """Names of the recordings of each split; no name twice."""
    faults: list[RecordError] = []
    document = load_file(path)
    fields = Fields(document, str(path), faults)
    names = fields.rest().copy()
    for unknown in (name for name in names if name not in SPLITS):
        fields.fault(f"there is no split {unknown!r}; call it train, val or test")
    splits = {split: list(fields.words(split)) for split in names}
    count = Counter(name for names in splits.values() for name in names)
    for name in (name for name, num in count.items() if num > 1):
        fields.fault(f"recording {name!r} is listed {count[name]} times; keep one place for it")
    raise_first(faults)
    return splits


def read_recordings(path: Path) -> dict[str, Recording]:
    """Every recording by its name, without its errors."""
    faults: list[RecordError] = []
    recordings = {}
    document = Fields(load_file(path), str(path), faults)
    for name, raw in document.rest().items():
        fields = Fields(raw, f"{path}: recording {name!r}", faults)
        recipe = fields.text("activity_name")
        rows = [_row(fields.inner(r, f"step {i}")) for i, r in enumerate(fields.items("steps"))]
        if not rows and not faults:
            fields.fault("has no steps; annotate them, or take the recording out")
        metadata = {"recipe": recipe, **fields.rest()}
        recordings[name] = Recording(name, fields.where, recipe, rows, metadata)
        raise_first(faults)
    raise_first(faults)
    return recordings


def _row(fields: Fields) -> Row:
    """One step as both annotation files give it; times of -1 say that it was skipped."""
    step_id, description = fields.index("step_id"), fields.text("description")
    if fields.rest().get("start_time") == -1 and fields.rest().get("end_time") == -1:
        return Row(step_id, description, None, None)
    start_s, end_s = fields.number("start_time"), fields.number("end_time")
    if end_s < start_s:
        fields.fault(f"ends at {show(end_s)} s, before its start at {show(start_s)} s; swap them")
    return Row(step_id, description, float(start_s), float(end_s))


def read_errors(path: Path) -> dict[str, list[Row]]:
    """The steps of every recording by its name, each with its errors."""
    faults: list[RecordError] = []
    document = load_file(path)
    if not isinstance(document, list):
        raise RecordError(f"{path}: expected a list of recordings, got {show(document)}.")
    recordings: dict[str, list[Row]] = {}
    for i, raw in enumerate(document):
        fields = Fields(raw, f"{path}: entry {i}", faults)
        name = fields.text("recording_id")
        if name in recordings:
            fields.fault(f"recording {name!r} was given before; keep one entry for it")
        where = f"{path}: recording {name!r}"
        recordings[name] = []
        for j, raw_row in enumerate(fields.items("step_annotations")):
            row_fields = Fields(raw_row, f"{where}: step {j}", faults)
            row = _row(row_fields)
            for raw_error in row_fields.items("errors") if row_fields.has("errors") else ():
                error = row_fields.inner(raw_error, "error")
                row.errors.append((error.text("tag"), error.text("description")))
            recordings[name].append(row)
        raise_first(faults)
    return recordings


def join_errors(recording: Recording, annotated: list[Row], where: str) -> None:
    """Give each row its errors; the two files must describe the same performances."""
    if [row.key for row in annotated] != [row.key for row in recording.rows]:
        raise RecordError(
            f"{where}: its steps, or their times, are not those of {STEPS_FILE}; take both files "
            "from the same release."
        )
    for row, twin in zip(recording.rows, annotated, strict=True):
        row.errors = twin.errors


def read_durations(path: Path) -> dict[str, float]:
    """Seconds of each recording."""
    durations_s = {}
    text = _read_bytes(path).decode("utf-8-sig", errors="replace")
    for line_no, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        name, seconds = row.get("recording_id"), row.get("duration(sec)")
        if not name or not seconds or not _SECONDS.fullmatch(seconds.strip()):
            raise RecordError(
                f"{path}:{line_no}: needs 'recording_id' and 'duration(sec)', a number of seconds; "
                f"got {show(name)} and {show(seconds)}. Correct the line, or the header."
            )
        durations_s[name] = float(seconds)
    return durations_s


def raise_first(faults: list[RecordError]) -> None:
    """Raise the first fault, if there is one."""
    if faults:
        raise faults[0]
