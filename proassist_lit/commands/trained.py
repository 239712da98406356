"""What was trained, found on the disk: a run with one of its checkpoints, or an exported folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proassist_lit.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from proassist_lit.config import RunConfig
    from proassist_lit.exchange.description import Description
    from proassist_lit.model.assistant import AssistantModel

_MAKES_VAL = (
    "source", "root", "val_files", "share", "max_val",
    "seed", "toy", "dialogue", "encoder", "num_tokens_per_img",
)  # fmt: skip
"""Settings of the data that decide what the streams of val are, on which thresholds are chosen."""


@dataclass(frozen=True)
class Trained:
    """A trained assistant on the disk, not yet loaded.

    Attributes:
        folder: directory of the run, or the folder that ``export`` or ``import`` wrote.
        config: of its training, with other settings where they were asked for.
        checkpoint: of a run; None for a folder, whose weights the configuration begins from.
        about: what a folder says of itself; None for a run.
        metrics: what it reached, flat; empty if it was not evaluated. Those of a run are of its
            last state, those of another checkpoint of its newest evaluation with the same stream
            and the same val.
    """

    folder: Path
    config: RunConfig
    checkpoint: Path | None = None
    about: Description | None = None
    metrics: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Path | None:
        """Folder of its tokenizer; None for a run that kept none."""
        folder = self.folder / "tokenizer" if self.about is None else self.folder
        return folder if folder.is_dir() else None

    def notes(self) -> dict[str, str]:
        """Which state it is, for those who read results: its checkpoint, and the step of that.

        Raises:
            CheckpointError: the checkpoint cannot be read.
        """
        from proassist_lit.model.checkpoint import read_step

        if self.checkpoint is None:
            return {"checkpoint": str(self.folder)}
        name = _within(self.folder, self.checkpoint)
        return {"checkpoint": str(name), "step": str(read_step(self.checkpoint))}

    def load_weights(self, model: AssistantModel) -> None:
        """Give a model that its configuration built what was trained.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is not one of this model.
        """
        from proassist_lit.model.checkpoint import load_weights

        if self.checkpoint is not None:
            load_weights(model, self.checkpoint)

    def vision_size(self) -> int:
        """E, size of a feature vector.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is none of a run.
        """
        from proassist_lit.model.checkpoint import read_checkpoint

        if self.about is not None:
            return self.about.vision_size
        assert self.checkpoint is not None
        state = read_checkpoint(self.checkpoint)
        if "projector.0.weight" not in state:
            raise CheckpointError(
                f"{self.checkpoint}: holds no projector (projector.0.weight is missing), so it is "
                "no checkpoint of a run; give one that training wrote."
            )
        return int(state["projector.0.weight"].shape[1])

    def load_model(self) -> AssistantModel:
        """The trained model, in evaluation mode; its data is not needed.

        Raises:
            ProAssistError: its files are missing, or not those of the model.
        """
        from transformers import AutoTokenizer

        from proassist_lit.build import build_model

        if self.tokenizer is None:
            raise CheckpointError(
                f"{self.folder / 'tokenizer'}: there is no tokenizer; restore the directory of the "
                "run, or train it again."
            )
        vision_size = self.vision_size()
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        model = build_model(self.config, tokenizer, vision_size)
        self.load_weights(model)
        return model.eval()


def find_trained(path: Path, which: str = "last", overrides: Sequence[str] = ()) -> Trained:
    """Find a trained assistant.

    Args:
        path: a run's directory, a checkpoint in one, or a folder that export or import wrote.
        which: ``last`` or ``best``, of a run.
        overrides: ``key=value`` settings other than its own. Another ``stream.rule`` unsets the
            threshold of speaking, which means nothing to it.

    Raises:
        ProAssistError: it is none of these, or a setting is wrong.
    """
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import read_config
    from proassist_lit.exchange.description import read_assistant
    from proassist_lit.model.assistant_folder import DESCRIPTION
    from proassist_lit.run_directory import follow_latest

    path = follow_latest(path)  # not to read one run here and another there
    if any(text.startswith("stream.rule=") for text in overrides):
        overrides = ["stream.theta_speak=null", *overrides]
    if (path / DESCRIPTION).is_file():
        about = read_assistant(path)
        config = override(about.config, overrides)
        return Trained(path, config, about=about, metrics=about.metrics)
    folder, checkpoint = find_checkpoint(path, which)
    config = read_config(RunConfig, folder / "config.yaml")
    metrics = _metrics_of(folder, checkpoint, config)
    return Trained(folder, override(config, overrides), checkpoint, metrics=metrics)


def _metrics_of(folder: Path, checkpoint: Path, config: RunConfig) -> Mapping[str, float | str]:
    """What the state in ``checkpoint`` of the run in ``folder`` reached; empty if nobody knows."""
    from proassist_lit.run_directory import RunDirectory

    is_last = checkpoint.resolve() == RunDirectory(folder).last_checkpoint.resolve()
    evaluations = [] if is_last else sorted((folder / "evaluations").glob("*/"), reverse=True)
    for found in [folder] if is_last else evaluations:
        try:
            is_of_state = is_last or _is_evaluation_of(found, folder, checkpoint, config)
            if is_of_state and (metrics := RunDirectory(found).read_metrics()):
                return metrics  # of one that came to its end
        except (ValueError, OSError):  # it cannot be read; an older one may be
            continue
    return {}


def _is_evaluation_of(found: Path, folder: Path, checkpoint: Path, config: RunConfig) -> bool:
    """Whether the state in ``checkpoint`` was evaluated in ``found``, as ``config`` says."""
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import read_config
    from proassist_lit.model.checkpoint import read_step

    notes = json.loads((found / "notes.json").read_text(encoding="utf-8"))
    if notes.get("checkpoint") != str(_within(folder, checkpoint)):
        return False
    if "step" in notes:
        is_trained_since = notes["step"] != str(read_step(checkpoint))
    else:  # notes of an earlier version: by times, which a copy has not
        is_trained_since = (found / "metrics.json").stat().st_mtime < checkpoint.stat().st_mtime
    if is_trained_since:
        return False
    asked, own = (
        (c.stream, c.compat, [getattr(c.data, name) for name in _MAKES_VAL])
        for c in (read_config(RunConfig, found / "config.yaml"), config)
    )
    return asked == own


def _within(folder: Path, checkpoint: Path) -> Path:
    """``checkpoint`` as seen from ``folder``, or from anywhere if it lies elsewhere."""
    if (path := Path(os.path.abspath(checkpoint))).is_relative_to(os.path.abspath(folder)):
        return path.relative_to(os.path.abspath(folder))
    path = checkpoint.resolve()
    return path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path


def find_checkpoint(path: Path, which: str) -> tuple[Path, Path]:
    """Directory of a run and the checkpoint to take.

    Args:
        path: the directory, or a checkpoint that lies in it.
        which: ``last`` or ``best``, of a directory.

    Raises:
        CheckpointError: there is no such run or checkpoint.
    """
    if path.is_dir():
        folder, checkpoint = path, path / "checkpoints" / f"{which}.ckpt"
    else:
        checkpoint = path
        # as it is written before as it is linked: a run's checkpoints may lie on another disk
        above = (*Path(os.path.abspath(path)).parents, *path.resolve().parents)
        folder = next((p for p in above if (p / "config.yaml").is_file()), path)
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(
            f"{path}: is no directory of a run (with config.yaml in it) and no checkpoint within "
            "one, nor a folder that export or import wrote; give what train.py wrote, such as "
            "outputs/latest."
        )
    if not checkpoint.is_file():
        raise CheckpointError(
            f"{checkpoint}: there is no such checkpoint; train the run first, or give another with "
            "--checkpoint."
        )
    return folder, checkpoint


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """``config`` with ``key=value`` settings, checked.

    Raises:
        ConfigError: a setting is no ``key=value``, its key is unknown, or its value is wrong.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import from_plain, to_plain

    if wrong := [text for text in overrides if "=" not in text]:
        raise ConfigError(
            f"command line: {', '.join(map(repr, wrong))} is no KEY=VALUE; write a setting as "
            "stream.theta_speak=0.4."
        )
    # Nothing is an empty text, as on Hydra's command line.
    settings = [text if text.partition("=")[2] else f"{text}''" for text in overrides]
    try:
        merged = OmegaConf.merge(
            OmegaConf.create(to_plain(config)), OmegaConf.from_dotlist(settings)
        )
        data = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"command line: {' '.join(str(error).split())}") from error
    assert isinstance(data, dict)
    return from_plain(
        RunConfig, {str(key): value for key, value in data.items()}, where="command line"
    )
