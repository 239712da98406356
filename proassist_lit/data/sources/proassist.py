"""ProAssist's prepared rows, read in place, and where their frames and features lie."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.record_checks import show
from proassist_lit.data.records import scan, sound_records
from proassist_lit.data.sources.proassist_times import check_prepared, early_times_warning
from proassist_lit.data.sources.source import PreparedSource
from proassist_lit.errors import RecordError

ENCODER = "google___siglip-so400m-patch14-384@-2"
"""Folder of the released features. (They are of the last layer, whatever the name says.)"""

_OF_SUMMARIES = re.compile(r"(^|[-_])summary[-_].*L\d+_I\d+")
"""Names of preparations that teach summaries alone; ``-sum`` marks those with summaries, too."""

_SUFFIXES = ("", ".arrow", ".safetensors")
"""What a record's ``frames_file`` may end in."""

_ROOT = "give the folder that holds the data sets, each in a folder of its own"


def read_proassist(root: Path, pattern: str = "*/prepared/*.jsonl") -> list[Conversation]:
    """Read and check prepared files of ProAssist.

    Args:
        root: the folder with one folder per data set in it, ProAssist's ``processed_data`` say.
        pattern: which files below ``root`` to read, as a glob:
            ``assembly101/prepared/dialog-klg-sum_val_L4096_I1.jsonl``. Rows come in the order of
            the files' names.

    Raises:
        RecordError: there is no such folder, no file fits, or one of them has a fault.
    """
    paths = prepared_files(root, pattern)
    return [conversation for path in paths for conversation in _read_prepared(path)]


def _read_prepared(path: Path) -> list[Conversation]:
    """The rows of a file; where they do not say whether silence is learnt, its name does."""
    early: list[str] = []
    rows = sound_records(scan(path, partial(check_prepared, early=early)))
    if early:
        warnings.warn(early_times_warning(path, early), stacklevel=3)
    if not _OF_SUMMARIES.search(path.stem):
        return rows
    return [replace(row, metadata={"summary_only": True, **row.metadata}) for row in rows]


def prepared_files(root: Path, pattern: str) -> list[Path]:
    """The files below ``root`` that fit ``pattern``, in the order of their names.

    Raises:
        RecordError: there is no such folder, or no file in it fits.
    """
    if not root.is_dir():
        raise RecordError(f"data.root={root}: there is no such folder; {_ROOT}.")
    if Path(pattern).is_absolute():
        raise RecordError(
            f"{pattern!r} (data.train_files and its like) must be below data.root={root}; write it "
            "as it stands from there."
        )
    paths = sorted(path for path in root.glob(pattern) if path.is_file())
    if not paths:
        raise RecordError(
            f"{root}: no file fits {pattern!r} (data.train_files and its like name others; "
            f"data.test_files= does without test); {_ROOT}: for files DIR/{pattern} it is "
            "data.root=DIR."
        )
    return paths


def frames_file(dataset: str, video_uid: str) -> str:
    """Where ProAssist keeps the frames of a video, relative to its data set's folder.

    For assembly101 the first ``_`` part of the name (``assembly_`` or ``disassembly_``) is left
    out, since one recording holds both.
    """
    stem = video_uid.partition("_")[2] if dataset == "assembly101" else video_uid
    if not stem:
        raise RecordError(
            f"video {show(video_uid)} of assembly101: the name has no '_'; its first part, up to "
            "'_', says what is done and is left out of file names: give the full name."
        )
    return f"frames/{stem}.arrow"


def feature_file(conversation: Conversation, root: Path, *, encoder: str = ENCODER) -> Path:
    """The file with the features of a record's video; it may not exist.

    Args:
        conversation: the record; its ``frames_file`` is ``frames/X.arrow``.
        root: the folder ``processed_data``.
        encoder: folder of the encoder below ``features``.

    Returns:
        ``root/<dataset>/features/<encoder>/X.arrow``.

    Raises:
        RecordError: ``frames_file`` is not of that form.
    """
    return root.joinpath(
        conversation.dataset, "features", encoder, *_parts_below_frames(conversation)
    )


def pictures_file(conversation: Conversation, root: Path) -> Path:
    """The file with the pictures of a record's video, ``root/<dataset>/frames/X.arrow``.

    It may not exist: the features do without.

    Raises:
        RecordError: ``frames_file`` is not of the form ``frames/X.arrow``.
    """
    return root.joinpath(conversation.dataset, "frames", *_parts_below_frames(conversation))


def _parts_below_frames(conversation: Conversation) -> tuple[str, ...]:
    path = PurePosixPath(conversation.frames_file)
    parts = path.parts
    is_known = path.suffix in _SUFFIXES  # any other is part of X, and would be lost
    if len(parts) < 2 or parts[0] != "frames" or ".." in parts or not is_known:
        raise RecordError(
            f"{conversation.source}: 'frames_file' is {conversation.frames_file!r}; to find the "
            "features it must be 'frames/X.arrow', X being the name of the video's file."
        )
    return parts[1:]


SOURCE = PreparedSource(files="prepared ProAssist data", read=read_proassist)
