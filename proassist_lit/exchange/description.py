"""``proassist_lit.json``: everything about an assistant that its tensors do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import from_plain, to_plain
from proassist_lit.errors import CheckpointError
from proassist_lit.model.assistant_folder import DESCRIPTION, read_description
from proassist_lit.model.config import Dtype, TrainMode

FORMAT = 1
"""Version of the folder's layout."""


@dataclass(frozen=True)
class Description:
    """What is known of an assistant.

    Attributes:
        config: of the run that trained it, the thresholds chosen.
        vision_size: E, size of a feature vector.
        fps: frames per second of its training data.
        metrics: what it reached, flat, as in ``metrics.json``.
        train: which parameters of the backbone were trained (``TrainMode``).
        command: that trained it; empty where it is not known.
        origin: a run, or what it was imported from.
        features: how the features of its training data were made, as ``encode`` notes it in them;
            empty where it is not known, or for drawn data.
    """

    config: RunConfig
    vision_size: int
    fps: float = 2.0
    metrics: Mapping[str, float | str] = field(default_factory=dict)
    train: str = TrainMode.FULL.value
    command: str = ""
    origin: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, tensors: Mapping[str, list[int]]) -> dict[str, Any]:
        """The content of the file; ``tensors`` are the shapes in the folder."""
        config = self.config
        return {
            "format": FORMAT,
            "base_model": config.model.backbone,
            "chat": config.model.chat,
            "separator": config.model.separator,
            "theta_speak": config.stream.theta_speak,
            "theta_dst": config.stream.theta_dst,
            "num_tokens_per_img": config.data.num_tokens_per_img,
            "fps": self.fps,
            "encoder": config.data.encoder,
            "vision_size": self.vision_size,
            "similarity": config.evaluation.similarity,
            "train": self.train,
            "command": self.command,
            "origin": self.origin,
            "features": dict(self.features),
            "metrics": dict(self.metrics),
            "config": to_plain(settled(config)),
            "tensors": dict(tensors),
        }


def read_assistant(folder: Path) -> Description:
    """What the folder of an assistant says of itself; its configuration begins from it.

    Raises:
        CheckpointError: it is no such folder, or one of another version.
        ConfigError: its configuration is not one of this version.
    """
    data = read_description(folder)
    path = folder / DESCRIPTION
    if data.get("format") != FORMAT or not isinstance(data.get("config"), dict):
        raise CheckpointError(
            f"{path}: has format {data.get('format')!r}, and this version reads {FORMAT}; export "
            "or import the assistant again."
        )
    config = from_plain(RunConfig, data["config"], where=str(path))
    model = replace(config.model, init_from=str(folder.resolve()))
    return Description(
        config=replace(config, model=model),
        vision_size=int(data["vision_size"]),
        fps=float(data["fps"]),
        metrics=data["metrics"],
        train=str(data["train"]),
        command=str(data["command"]),
        origin=str(data["origin"]),
        features=data.get("features", {}),  # older folders say nothing of them
    )


def settled(config: RunConfig) -> RunConfig:
    """The configuration of an assistant that is finished: there is nothing to begin from."""
    # Beside 4 bits all is in bfloat16, and so the streams were.
    dtype = Dtype.BFLOAT16 if config.model.train is TrainMode.QLORA else config.model.dtype
    model = replace(config.model, init_from="", init_new=[], train=TrainMode.FULL, dtype=dtype)
    return replace(config, model=model, resume="none")


def with_thresholds(config: RunConfig, metrics: Mapping[str, float | str]) -> RunConfig:
    """The configuration with the thresholds that the run chose on val."""
    chosen = {
        name: metrics.get(f"val/{name}")
        for name in ("theta_speak", "theta_dst")
        if getattr(config.stream, name) is None
    }
    known: dict[str, Any] = {name: v for name, v in chosen.items() if isinstance(v, float)}
    return replace(config, stream=replace(config.stream, **known))
