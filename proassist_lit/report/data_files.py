"""The prepared files of a data set: which ones there are, what they hold, all that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.record_checks import load_json
from proassist_lit.data.records import find_faults, parse_record, read_records
from proassist_lit.errors import RecordError

_KEYS = {"conversation", "frames_file", "start_frame_idx"}
"""Keys by which a record is known among the other JSON files of a folder."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a data set.

    Attributes:
        path: the file.
        conversations: its sound records.
        faults: everything that is wrong with the others.
        is_readable: whether the file could be opened at all; if not, ``faults`` says why.
    """

    path: Path
    conversations: tuple[Conversation, ...]
    faults: tuple[RecordError, ...]
    is_readable: bool = True


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


def read_data_file(path: Path) -> DataFile:
    """Read a prepared file as far as it can be read."""
    try:
        path.open("rb").close()
    except OSError as error:
        fault = RecordError(
            f"{path}: cannot be read: {error.strerror or error}. Check the path and its rights."
        )
        return DataFile(path=path, conversations=(), faults=(fault,), is_readable=False)
    try:
        return DataFile(path=path, conversations=tuple(read_records(path)), faults=())
    except RecordError:  # the first of perhaps many
        sound = tuple(_sound_records(path))
        return DataFile(path=path, conversations=sound, faults=tuple(find_faults(path)))


def _sound_records(path: Path) -> Iterator[Conversation]:
    """The records of a faulty file that are right."""
    for where, raw in _records(path):
        try:
            yield parse_record(raw, where=where)
        except RecordError:
            continue


def _records(path: Path) -> Iterator[tuple[str, object]]:
    """Place and JSON of every record that is JSON."""
    if path.suffix != ".json":
        with path.open("rb") as file:
            for line_no, line in enumerate(file, start=1):
                try:
                    yield f"{path}:{line_no}", load_json(line, str(path))
                except RecordError:
                    continue
        return
    try:
        document = load_json(path.read_bytes(), str(path))
    except RecordError:
        return
    if isinstance(document, list):
        yield from ((f"{path}[{i}]", raw) for i, raw in enumerate(document))
    else:
        yield f"{path}:1", document


def _may_hold_records(path: Path) -> bool:
    try:
        raw = _first_record(path)
    except (RecordError, OSError):
        return True
    return isinstance(raw, dict) and bool(_KEYS & raw.keys())


def _first_record(path: Path) -> object:
    if path.suffix == ".json":
        document = load_json(path.read_bytes(), str(path))
        return document[0] if isinstance(document, list) and document else document
    with path.open("rb") as file:
        line = next((line for line in file if line.strip()), b"")
    return load_json(line, str(path))
