"""A spreadsheet of steps, saved as CSV: which video shows which step when, and what was said.

The columns ``video, step, start, end`` must be there; ``said, speaker, task, split`` may be. Their
order is free, and so are letter case and blanks around names. A row is one of these:

- a step with its start and end;
- a step without times: it belongs to the task, but was left out in this video;
- words (``said``) without a step, at ``start``; or beside a step, when it starts.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from proassist_lit.data.record_checks import nearest, show
from proassist_lit.errors import RecordError
from proassist_lit.types import SPLITS
from proassist_lit.vision.video_file import VIDEO_SUFFIXES

REQUIRED = ("video", "step", "start", "end")
"""Columns that must be there."""

OPTIONAL = ("said", "speaker", "task", "split")
"""Columns that may be there."""

_SPEAKERS = ("assistant", "user")
_DELIMITERS = ",;\t"  # what spreadsheets save CSV with, by country
_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,4}):)?(\d+(?:[.,]\d*)?)", re.ASCII)  # h:m:s


@dataclass(frozen=True)
class StepRow:
    """A step of a video.

    Attributes:
        where: ``file:line``, for messages.
        name: as it was written.
        start_s: seconds from the start of the video; None if it was left out.
        end_s: likewise.
    """

    where: str
    name: str
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True)
class SaidRow:
    """Words of a video.

    Attributes:
        where: ``file:line``, for messages.
        words: what was said.
        time_s: when, seconds from the start of the video.
        by_user: whether the user said it.
    """

    where: str
    words: str
    time_s: float
    by_user: bool


@dataclass
class VideoRows:
    """Everything that the spreadsheet says of one video.

    Attributes:
        name: of its file below the folder of videos, without suffix: ``monday/tea_1``.
        where: ``file:line`` of its first row, for messages.
        task: its goal; empty if no row says it.
        split: train, val or test; empty if no row says it.
        steps: in the order of the rows, which is that of the plan.
        said: in the order of the rows.
    """

    name: str
    where: str
    task: str = ""
    split: str = ""
    steps: list[StepRow] = field(default_factory=list)
    said: list[SaidRow] = field(default_factory=list)


@dataclass(frozen=True)
class Spreadsheet:
    """A spreadsheet that is right.

    Attributes:
        path: the file.
        videos: in the order of their first rows.
        ignored: names of columns that mean nothing here.
    """

    path: Path
    videos: tuple[VideoRows, ...]
    ignored: tuple[str, ...]


def read_spreadsheet(path: Path) -> Spreadsheet:
    """Read and check a CSV file; UTF-8, with commas, semicolons or tabs.

    Raises:
        RecordError: the file cannot be read, lacks a column, or has faults: all of them, a line
            each.
    """
    lines = _lines(path)
    _, header = next(lines, (0, []))
    columns = _columns(path, header)
    faults: list[RecordError] = []
    videos: dict[str, VideoRows] = {}
    for line, cells in lines:
        where = f"{path}:{line}"
        if len(cells) > len(header):
            faults.append(
                RecordError(
                    f"{where}: has {len(cells)} cells, but the header {len(header)}; put a text "
                    'that holds the separator between quotes: "wait, stir first".'
                )
            )
            continue
        given = {name: cells[i].strip() if i < len(cells) else "" for name, i in columns.items()}
        _Row(where, given, faults).add_to(videos)
    if not videos and not faults:
        faults.append(RecordError(f"{path}: holds no rows below its header; add one for a step."))
    faults += [
        RecordError(
            f"{video.where}: video {video.name!r} has no steps, only words; add a row for each "
            "step, or take the video out."
        )
        for video in videos.values()
        if not (video.steps or faults)
    ]
    if faults:
        raise RecordError("\n".join(map(str, faults)))
    ignored = (name.strip() for i, name in enumerate(header) if i not in columns.values())
    return Spreadsheet(path, tuple(videos.values()), tuple(filter(None, ignored)))


class _Row:
    """One row, its cells checked; faults are noted, so that all are found in one go."""

    def __init__(self, where: str, cells: Mapping[str, str], faults: list[RecordError]) -> None:
        self._where, self._cells, self._faults = where, cells, faults

    def add_to(self, videos: dict[str, VideoRows]) -> None:
        name = _video_name(self._text("video"))
        if not name:
            self._fault("names no video; write the name of its file into the column 'video'")
            return
        video = videos.setdefault(name, VideoRows(name, self._where))
        for key in ("task", "split"):
            self._agree(video, key)
        step, said = self._text("step"), " ".join(self._text("said").split())
        num_faults = len(self._faults)
        start_s, end_s = self._time("start"), self._time("end")
        if len(self._faults) > num_faults:
            return
        if step:
            self._add_step(video, " ".join(step.split()), start_s, end_s)
        elif not said:
            self._fault("has neither a step nor words; write one of them, or delete the row")
        if said:
            self._add_said(video, said, start_s)

    def _add_step(
        self, video: VideoRows, name: str, start_s: float | None, end_s: float | None
    ) -> None:
        if not any(letter.isalpha() for letter in name):
            self._fault(f"the step is {name!r}; name it in words: 'fill the kettle'")
        if (start_s is None) != (end_s is None):
            self._fault(
                "has only one of the two times of its step; write 'start' and 'end', or neither "
                "for a step that was left out"
            )
        elif start_s is not None and end_s is not None and end_s <= start_s:
            self._fault(f"ends at {end_s:g} s, not after its start at {start_s:g} s; swap them")
        else:
            video.steps.append(StepRow(self._where, name, start_s, end_s))

    def _add_said(self, video: VideoRows, words: str, start_s: float | None) -> None:
        speaker = self._text("speaker").lower() or _SPEAKERS[0]
        if speaker not in _SPEAKERS:
            self._fault(f"the speaker is {show(speaker)}; write assistant or user")
        elif start_s is None:
            self._fault("has words without a time; write when they were said into 'start'")
        else:
            video.said.append(SaidRow(self._where, words, start_s, speaker == "user"))

    def _agree(self, video: VideoRows, key: str) -> None:
        """Task and split are those of the video: rows leave them empty, or say the same."""
        value, known = self._text(key), getattr(video, key)
        if key == "split":
            value = value.lower()
            if value and value not in SPLITS:
                self._fault(f"the split is {show(value)}; write {', '.join(SPLITS)}, or nothing")
                return
        if value and known and value != known:
            self._fault(
                f"the {key} of video {video.name!r} is {show(value)}, but an earlier row says "
                f"{show(known)}; write one of them"
            )
        elif value:
            setattr(video, key, value)

    def _time(self, key: str) -> float | None:
        text = self._text(key)
        if not text:
            return None
        found = _TIME.fullmatch(text)
        if found is None or not math.isfinite(seconds := float(found[3].replace(",", "."))):
            self._fault(
                f"{key!r} is {show(text)}; write seconds from the start of the video (83.5) or "
                "minutes and seconds (1:23.5)"
            )
            return None
        hours, minutes = int(found[1] or 0), int(found[2] or 0)
        if (found[2] and seconds >= 60) or (found[1] and minutes >= 60):
            self._fault(f"{key!r} is {show(text)}; behind a colon there are at most 59")
            return None
        return hours * 3600 + minutes * 60 + seconds

    def _text(self, key: str) -> str:
        return self._cells.get(key, "")

    def _fault(self, message: str) -> None:
        self._faults.append(RecordError(f"{self._where}: {message}."))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the line at which each row begins, and its cells; empty rows are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read: {error.strerror or error}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{path}: is not UTF-8 text (byte {error.start}); save the spreadsheet as CSV in "
            "UTF-8, not as a workbook."
        ) from error
    header = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise RecordError(
                f"{path}:{line}: is no row of a CSV file ({error}); close its quotes, and write "
                "a quote in a text twice."
            ) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Place of each column that is known."""
    names = [name.strip().lower() for name in header]
    known = {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names}
    if missing := [name for name in REQUIRED if name not in known]:
        got = ", ".join(map(repr, header)) or "nothing"
        others = [name for name in names if name and name not in known]
        near = f" Is {nearest(missing[0], others)!r} meant?" if others else ""
        raise RecordError(
            f"{path}:1: has no column {' and no '.join(map(repr, missing))}; the first line must "
            f"name the columns {', '.join(REQUIRED)}, but it is {got}.{near}"
        )
    if twice := [name for name in known if names.count(name) > 1]:
        raise RecordError(f"{path}:1: names the column {twice[0]!r} twice; rename one of them.")
    return known


def _video_name(text: str) -> str:
    """``monday/tea_1.mp4``, with slashes of either kind, as ``monday/tea_1``."""
    path = PurePosixPath(text.replace("\\", "/"))
    is_file = path.suffix.lower() in VIDEO_SUFFIXES
    return str(path.with_suffix("") if is_file else path) if path.name else ""
