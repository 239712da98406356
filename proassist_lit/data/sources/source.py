"""Sources of data: what ``data.source`` can name, and how its recordings are had."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.reorder import further_orders
from proassist_lit.data.timeline import Timeline

if TYPE_CHECKING:
    from proassist_lit.data.config import DataConfig

Timelines = Mapping[str, list[Timeline]]
"""Recordings by split."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What all kinds have in common.

    Attributes:
        files: what ``data.root`` holds, for messages; empty if it has no files.
    """

    files: str = ""


@dataclass(frozen=True, kw_only=True)
class PreparedSource(Source):
    """Conversations and features are there, and read in place.

    Features and pictures must lie where ProAssist has them; see ``data/sources/proassist.py``.

    Attributes:
        read: the conversations of the files below a folder that fit a pattern.
        read_as_released: the same, as the source's own code does where ours would refuse; None
            where it does nothing of the kind.
    """

    read: Callable[[Path, str], list[Conversation]]
    read_as_released: Callable[[Path, str], list[Conversation]] | None = None


class DrawnSource(Source, ABC):
    """Only what happened is known: dialogues are written over it, and frames are drawn."""

    limits_recordings: ClassVar[bool]
    """Whether ``data.max_train`` and its like count recordings, which are then all that is drawn;
    otherwise they count conversations."""

    @abstractmethod
    def timelines(self, config: DataConfig) -> Timelines:
        """What happened in the recordings."""

    @abstractmethod
    def settings(self, config: DataConfig) -> Mapping[str, Any]:
        """Settings that decide which recordings there are."""

    @abstractmethod
    def folder(self, config: DataConfig) -> Path:
        """Folder below which drawn data is kept."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedSource(DrawnSource):
    """Real recordings, known by their annotations.

    Attributes:
        read: the recordings that are annotated in a folder, by split.
    """

    read: Callable[[Path], Timelines]
    limits_recordings: ClassVar[bool] = True

    def timelines(self, config: DataConfig) -> Timelines:
        """As many of the annotated recordings as are wanted, and train's in other orders."""
        splits = self.read(config.source_root)
        wanted = {split: config.limited(split, found) for split, found in splits.items()}
        if config.other_orders and "train" in wanted:
            train = wanted["train"]
            wanted["train"] = train + further_orders(train, config.other_orders, seed=config.seed)
        return wanted

    def settings(self, config: DataConfig) -> Mapping[str, Any]:
        """What the annotations say, wherever they lie, and how much of it is wanted."""
        limits = [config.max_train, config.max_val, config.max_test]
        further = {"share": config.share} if config.share < 1 else {}
        if config.other_orders:
            further["other_orders"] = config.other_orders
        digest = hashlib.blake2b(digest_size=8)
        for split, found in self.read(config.source_root).items():
            digest.update("\n".join([split, *(t.to_json() for t in found)]).encode())
        return {"annotations": digest.hexdigest(), "limits": limits, **further}

    def folder(self, config: DataConfig) -> Path:
        """Never beside the annotations, which may be read only."""
        return Path(config.cache)


@dataclass(frozen=True, kw_only=True)
class InventedSource(DrawnSource):
    """Recordings that there never were.

    Attributes:
        invent: makes them, by split.
        own_settings: the section of the configuration that says how.
    """

    invent: Callable[[Any], Timelines]
    own_settings: Callable[[DataConfig], Any]
    limits_recordings: ClassVar[bool] = False

    def timelines(self, config: DataConfig) -> Timelines:
        """All of them."""
        return self.invent(self.own_settings(config))

    def settings(self, config: DataConfig) -> Mapping[str, Any]:
        """Its section."""
        return {config.source: asdict(self.own_settings(config))}

    def folder(self, config: DataConfig) -> Path:
        """Where they are wanted."""
        return config.source_root
