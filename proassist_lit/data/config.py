"""Settings of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.sources.registry import SOURCES, find_source
from proassist_lit.data.sources.source import PreparedSource
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import ConfigError
from proassist_lit.vision.encoders import build_encoder, grids_for

_T = TypeVar("_T")


@dataclass(kw_only=True)
class DataConfig:
    """Records, features and batches."""

    source: Annotated[str, SOURCES] = "toy"
    """What reads the data, a file of ``data/sources``; ``data=NAME`` chooses it with the rest."""

    root: str = ""
    """Folder of the source's own files; the toy source has none. Empty for ``cache``."""

    cache: str = "data"
    """Folder in which generated records and features are kept."""

    num_tokens_per_img: int = 1
    """K, tokens per frame: 1 (cls), 5 (cls + 2x2), 10 (cls + 3x3) or 26 (cls + 5x5)."""

    encoder: str = "thumbnail16"
    """Encoder of drawn frames, or name of the feature folder of prepared data."""

    seed: int = 1
    """Seed of wordings and drawn scenes; the run's own seed does not change the data."""

    max_seq_len: int = 4096
    """Longest training sequence, tokens; a longer conversation is split into parts that fit, as
    splitting.method says."""

    batch_size: int = 2
    """Conversations per batch, unless ``max_tokens`` is given; >= 1."""

    max_tokens: int | None = None
    """Most tokens per batch, padding included; batches are then filled with as many conversations
    as fit. At least the longest of them; null: ``batch_size`` conversations, whatever their
    lengths."""

    packing: bool = False
    """Whether the conversations of a batch are written one behind the other, without padding, and
    see only themselves. The losses are the same. The rules of the DST extension need padding, and
    so do a few backbones, which is said when training begins."""

    num_workers: int = 0
    """Processes that load batches; 0 loads in the main process."""

    share: float = 1.0
    """Share of the conversations of every split that is used, the first of them and at least one;
    in (0, 1]."""

    max_train: int = 0
    """Most conversations (of annotations: recordings) of train that are used; 0 for all."""

    max_val: int = 0
    """Most conversations of val that are used; 0 for all."""

    max_test: int = 0
    """Most conversations of test that are used; 0 for all."""

    train_files: str = "train*.jsonl"
    """proassist, dst: prepared files of train, as a pattern below ``root``."""

    val_files: str = "val*.jsonl"
    """proassist, dst: prepared files of val."""

    test_files: str = "test*.jsonl"
    """proassist, dst: prepared files of test; empty for none (val is then reported)."""

    other_orders: int = 0
    """Annotated sources: further recordings made of each one of train, its steps in other orders
    that the plan allows; >= 0. Only train has them, and only where steps tell what they need."""

    toy: ToyConfig = field(default_factory=ToyConfig)
    """How toy recordings are invented."""

    dialogue: DialogueConfig = field(default_factory=DialogueConfig)
    """How conversations are written over timelines (toy, captaincook4d)."""

    def __post_init__(self) -> None:
        grids_for(self.num_tokens_per_img)
        source = find_source(self.source)
        if source.files and not self.root:
            raise ConfigError(f"data.root is empty; name the folder of the {source.files}.")
        if not self.is_prepared:
            build_encoder(self.encoder)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(
                f"data.max_tokens must be at least 1, got {self.max_tokens}; null for no limit."
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"data.share must be in (0, 1], got {self.share}; 1 for all.")
        for name, least in (("batch_size", 1), ("num_workers", 0), ("max_seq_len", 64),
                            ("max_train", 0), ("max_val", 0), ("max_test", 0),
                            ("other_orders", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(
                    f"data.{name} must be at least {least}, got {getattr(self, name)}."
                )

    def limited(self, split: str, records: list[_T]) -> list[_T]:
        """The first records of ``split``, as many as are wanted."""
        limit = {"train": self.max_train, "val": self.max_val, "test": self.max_test}[split]
        number = math.ceil(len(records) * self.share - 1e-9)  # 0.07 * 100 is above 7
        return records[: max(number, 1)][: limit or None]

    @property
    def is_prepared(self) -> bool:
        """Whether records and features are read in place; all others are drawn."""
        return isinstance(find_source(self.source), PreparedSource)

    @property
    def source_root(self) -> Path:
        """Folder of the source's own files."""
        return Path(self.root or self.cache)
