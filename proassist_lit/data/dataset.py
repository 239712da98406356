"""The conversations of a run, with their features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn, Conversation, SystemTurn, UserTurn
from proassist_lit.data.feature_content import HowMade, read_notes
from proassist_lit.data.features import FeatureFile, FeatureReader
from proassist_lit.data.frames import read_frames
from proassist_lit.data.generate import generate, read_timelines
from proassist_lit.data.records import read_records
from proassist_lit.data.render import Renderer
from proassist_lit.data.sources.proassist import feature_file, pictures_file
from proassist_lit.data.sources.registry import find_source
from proassist_lit.data.sources.source import DrawnSource, PreparedSource
from proassist_lit.data.timeline import Timeline
from proassist_lit.errors import FeatureError, ProAssistError, RecordError
from proassist_lit.types import SPLITS, Transition, Update, format_updates
from proassist_lit.vision.encoders import grids_for

PICTURE_SIDE = 192
"""Longest side of real pictures that people are shown, pixels."""


_FPS_ROUNDING = 1e-3  # of frames per second that are noted as text


@dataclass(frozen=True)
class ConversationSet:
    """Conversations of one split and the way to their features.

    Attributes:
        split: train, val or test.
        conversations: the records.
        folder: data set folder; feature files lie below it.
        config: how the data was asked for.
        datasets: names of their data sets, and of those of records that a limit left out.
    """

    split: str
    conversations: tuple[Conversation, ...]
    folder: Path
    config: DataConfig
    datasets: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.conversations)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self.conversations)

    def without_updates(self) -> ConversationSet:
        """The same records without state tracking."""
        return replace(self, conversations=tuple(c.without_updates() for c in self.conversations))

    def features(self, conversation: Conversation) -> Tensor:
        """(F, K, E) float32 features of the frames that ``conversation`` watches."""
        return self._file(conversation).read(
            conversation.start_frame_idx, conversation.end_frame_idx, where=conversation.source
        )

    def feature_path(self, conversation: Conversation) -> Path:
        """The file with the features of ``conversation``; it may not exist."""
        return self._file(conversation).path

    def check_features(self, ways: dict[HowMade, Path] | None = None) -> int:
        """Check that every record's frames are there, each with all of its cells; return E.

        Args:
            ways: as of ``feature_faults``.

        Raises:
            FeatureError: naming the record and what to do.
        """
        widths: dict[int, Path] = {}
        for fault in self.feature_faults(widths, {} if ways is None else ways):
            raise fault
        return next(iter(widths))

    def feature_faults(
        self, widths: dict[int, Path], ways: dict[HowMade, Path]
    ) -> Iterator[ProAssistError]:
        """Every fault of the features, each naming what to do; a file that is none is told once.

        Args:
            widths: is filled with the widths E that were met, each with the first file of it.
            ways: likewise with the ways in which files say that they were made. Every file must
                be made as the first one of all, which may be of another split.
        """
        seen: dict[Path, tuple[int, int, int] | None] = {}
        first_records: dict[Path, Conversation] = {}
        notes: dict[Path, dict[str, str]] = {}
        ways_of: dict[Path, HowMade] = {}
        for conversation in self.conversations:
            try:
                file = self._file(conversation)
                if file.path not in seen:
                    seen[file.path] = None
                    first_records[file.path] = conversation
                    shape = file.shape(where=conversation.source)
                    notes[file.path] = read_notes(file.path)
                    seen[file.path] = shape
                    if way := HowMade.said_in(notes[file.path]):
                        ways_of[file.path] = way
                        ways.setdefault(way, file.path)
            except ProAssistError as fault:
                yield fault
                continue
            if (known := seen[file.path]) is None:
                continue
            try:
                _check_fps(file.path, _noted_fps(notes[file.path]), conversation)
            except FeatureError as fault:
                yield fault
            num_frames, _, width = known
            widths.setdefault(width, file.path)
            if conversation.end_frame_idx > num_frames:
                yield FeatureError(
                    f"{conversation.source}: watches frames {conversation.start_frame_idx}.."
                    f"{conversation.end_frame_idx - 1}, but {file.path} holds frames 0.."
                    f"{num_frames - 1}; correct end_frame_idx, or encode the whole video."
                )
        first, path = next(iter(widths.items()), (0, Path()))
        for other, found in seen.items():
            if found is not None and (second := found[2]) != first:
                yield FeatureError(
                    f"{first_records[other].source}: features of {other} are {second} wide, but "
                    f"those of {path} are {first}; encode all videos with one encoder."
                )
        for other, way in ways_of.items():
            alike, path = next(iter(ways.items()))
            if differing := way.differing(alike):
                yield FeatureError(
                    f"{first_records[other].source}: features of {other} were made differently "
                    f"from those of {path}: {differing}; encode all videos alike."
                )

    def frames(self, conversation: Conversation, indices: list[int]) -> NDArray[np.uint8] | None:
        """(n, H, W, 3) pictures of frames, for people to look at; None where there are none.

        Pictures are nothing a run depends on: a file of them that cannot be read is warned of.
        """
        if self.config.is_prepared:
            path = pictures_file(conversation, self.folder)
            try:
                return read_frames(path, indices, max_side=PICTURE_SIDE, where=conversation.source)
            except FeatureError as error:
                warnings.warn(f"no pictures to show: {error}", stacklevel=2)
                return None
        timeline = self._timelines.get(conversation.video_uid)
        if timeline is None:
            return None
        renderer = Renderer(timeline)
        return np.stack([renderer.frame(i, conversation.fps) for i in indices])

    @cached_property
    def _timelines(self) -> dict[str, Timeline]:
        return read_timelines(self.folder) if (self.folder / "timelines.jsonl").exists() else {}

    def _file(self, conversation: Conversation) -> FeatureReader:
        grids = grids_for(self.config.num_tokens_per_img)
        if self.config.is_prepared:
            path = feature_file(conversation, self.folder, encoder=self.config.encoder)
            return open_features(path, grids)
        name = f"{conversation.video_uid}.safetensors"
        return FeatureFile(self.folder / "features" / self.config.encoder / name, grids)


def load_data(config: DataConfig, *, as_released: bool = False) -> dict[str, ConversationSet]:
    """Load (and if need be generate) the conversations of every split.

    Args:
        config: which ones.
        as_released: read what a source's own code reads and ours would not, as that does.

    Raises:
        RecordError: a file is wrong, a split is empty, or two records that are streamed have one
            name.
    """
    source = find_source(config.source)
    if isinstance(source, PreparedSource):
        folder = config.source_root
        patterns = {"train": config.train_files, "val": config.val_files, "test": config.test_files}
        read = (source.read_as_released if as_released else None) or source.read
        records = {split: read(folder, pattern) for split, pattern in patterns.items() if pattern}
    else:
        folder = generate(config)
        paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
        records = {split: read_records(path) for split, path in paths.items() if path.exists()}
    sets = {}
    for split, conversations in records.items():
        if not conversations:
            raise RecordError(f"{folder}: split {split!r} is empty; it needs at least one record.")
        datasets = frozenset(conversation.dataset for conversation in conversations)
        if split != "train":
            conversations = told_apart(conversations)
        if not (isinstance(source, DrawnSource) and source.limits_recordings):
            conversations = config.limited(split, conversations)
        if split != "train":
            for fault in name_faults(conversations):
                raise fault
        sets[split] = ConversationSet(split, tuple(conversations), folder, config, datasets)
    for split in ("train", "val"):
        if split not in sets:
            raise RecordError(f"{folder}: has no {split} records; every run needs them.")
    return sets


def told_apart(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The same, but that streams of one name in several data sets bear those of the data sets."""
    having: dict[str, set[str]] = {}
    for conversation in conversations:
        having.setdefault(conversation.id, set()).add(conversation.dataset)
    return [replace(c, names_dataset=True) if len(having[c.id]) > 1 else c for c in conversations]


def name_faults(conversations: Iterable[Conversation]) -> Iterator[RecordError]:
    """Records of one name in one data set, among those that are streamed: they share one file."""
    seen: dict[tuple[str, str], Conversation] = {}
    for conversation in conversations:
        other = seen.setdefault((conversation.dataset, conversation.id), conversation)
        if other is not conversation:
            yield RecordError(
                f"{conversation.source}: is named {conversation.id!r}, as {other.source} is "
                "(video_uid, clip_idx, and user_id or user_type of metadata); give one of them "
                "another clip_idx."
            )


def training_texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Every text of the conversations, for training a tokenizer."""
    for conversation in conversations:
        for turn in conversation.turns:
            if isinstance(turn, SystemTurn | UserTurn | AssistantTurn):
                yield turn.content
            if isinstance(turn, AssistantTurn) and turn.progress:
                yield turn.progress
        for step in conversation.steps:
            for state in ("in progress", "completed"):
                yield f"Steps: {step.id}: {step.name} ({state})."
            yield format_updates([Update(step.id, t) for t in Transition])


def _noted_fps(notes: Mapping[str, str]) -> float | None:
    """Rate at which a feature file says it was encoded, frames per second; None if it does not."""
    try:
        return float(notes.get("fps", ""))
    except ValueError:
        return None


def _check_fps(path: Path, noted: float | None, conversation: Conversation) -> None:
    """Refuse features of another rate than the record's, if the file notes its own."""
    if noted is not None and not math.isclose(noted, conversation.fps, rel_tol=_FPS_ROUNDING):
        raise FeatureError(
            f"{conversation.source}: has {conversation.fps:g} frames a second, but {path} was "
            f"encoded with {noted:g}, so that frames and times do not fit; make the records anew "
            "(proassist-lit prepare), or encode with the rate of the records."
        )
