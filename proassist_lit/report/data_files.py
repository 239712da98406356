"""The prepared files of a data set: which ones there are, what they hold, all that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import name_faults
from proassist_lit.data.records import Checked, scan
from proassist_lit.data.sources.dst import check_row, is_dst_row
from proassist_lit.data.sources.dst_times import times_warning
from proassist_lit.data.sources.proassist_times import check_prepared, early_times_warning
from proassist_lit.errors import RecordError

_KEYS = {"conversation", "events", "frames_file", "start_frame_idx"}
"""Keys by which a record or row is known among the other JSON files of a folder."""

_STREAMED = re.compile(r"(?<![a-z])(val|test)(?![a-z])")
"""What the names of files of val and test have, those that are streamed."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a data set.

    Attributes:
        path: the file.
        conversations: its sound records.
        faults: everything that is wrong with the others.
        is_readable: whether the file could be opened at all; if not, ``faults`` says why.
        warning: what is odd and yet no fault, a line each; empty for nothing.
    """

    path: Path
    conversations: tuple[Conversation, ...]
    faults: tuple[RecordError, ...]
    is_readable: bool = True
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Files of a data set, and the JSON files of its folders that hold no records."""

    paths: tuple[Path, ...]
    left_out: tuple[Path, ...]


def find_data_files(data: Iterable[Path]) -> FoundFiles:
    """The prepared files that ``data`` names: files as they are, folders with all below them.

    In a folder, a JSON file whose first record has no key of a prepared record (a manifest,
    timelines) is left out. One that is not valid JSON is kept: its faults are to be seen.

    Args:
        data: files (.jsonl, .json) and folders.

    Raises:
        RecordError: a folder holds no prepared file.
    """
    paths: dict[Path, None] = {}
    left_out: dict[Path, None] = {}
    for path in data:
        if not path.is_dir():
            paths[path] = None
            continue
        below = sorted(p for p in path.rglob("*.json*") if p.suffix in (".jsonl", ".json"))
        prepared = {p: None for p in below if p.is_file() and _may_hold_records(p)}
        if not prepared:
            raise RecordError(
                f"{path}: no prepared file below this folder; give the folder of the .jsonl "
                "files, or name the files."
            )
        paths |= prepared
        left_out |= {p: None for p in below if p.is_file() and p not in prepared}
    return FoundFiles(paths=tuple(paths), left_out=tuple(left_out))


def read_data_file(path: Path, *, as_released: bool = False) -> DataFile:
    """Read a file once, as far as it can be read; each entry as what it is meant to be.

    Args:
        path: the file.
        as_released: read rows of the DST extension as its own code does.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        fault = RecordError(
            f"{path}: cannot be read: {error.strerror or error}. Check the path and its rights."
        )
        return DataFile(path=path, conversations=(), faults=(fault,), is_readable=False)
    conversations: list[Conversation] = []
    faults: list[RecordError] = []
    early: list[str] = []
    for checked in scan(path, partial(_check, as_released=as_released, early=early)):
        if isinstance(checked, list):
            faults += checked
        else:
            conversations.append(checked)
    if _STREAMED.search(path.stem):
        faults += name_faults(conversations)
    warnings = times_warning(path, conversations), early_times_warning(path, early)
    return DataFile(
        path=path, conversations=tuple(conversations), faults=tuple(faults),
        warning="\n".join(filter(None, warnings)),
    )  # fmt: skip


def _check(raw: object, where: str, *, as_released: bool, early: list[str]) -> Checked:
    """A record of ours or ProAssist's, or a row of its DST extension."""
    if is_dst_row(raw):
        return check_row(raw, where, as_released=as_released)
    return check_prepared(raw, where, early)


def _may_hold_records(path: Path) -> bool:
    try:
        raw = _first_record(path)
    except (ValueError, RecursionError, OSError):
        return True
    return isinstance(raw, dict) and bool(_KEYS & raw.keys())


def _first_record(path: Path) -> object:
    """The first JSON value, in ``.json`` that of a list; what follows it is not parsed."""
    with path.open(encoding="utf-8-sig") as file:
        text = file.read() if path.suffix == ".json" else next(filter(str.strip, file), "")
    text = text.lstrip()
    if path.suffix == ".json" and text.startswith("["):
        text = text[1:].lstrip()
        if text.startswith("]"):
            return None
    first: object = json.JSONDecoder().raw_decode(text)[0]
    return first
