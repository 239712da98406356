"""What the commands with a trained assistant have in common: it is loaded and ready to watch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proassist_lit.commands.trained import Trained, find_trained
from proassist_lit.errors import ConfigError, ProAssistError

if TYPE_CHECKING:
    import torch

    from proassist_lit.config import RunConfig
    from proassist_lit.data.dataset import ConversationSet
    from proassist_lit.live.assistant import LiveAssistant
    from proassist_lit.live.task import Task
    from proassist_lit.vision.encoder import FrameEncoder


def add_assistant_options(parser: argparse.ArgumentParser) -> None:
    """Options that say who watches."""
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="a run's directory, a .ckpt file in one, or a folder that export or import wrote; one "
        "trained with compat=proassist is stepped by our own rules, not by the reference's",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting other than the run's, such as stream.theta_speak=0.4; may be repeated",
    )
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="of a run: its last state, or that of the lowest loss on val (default: last)",
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="as of encode, another copy of the one that the run's features were made with, say; "
        "layer, preprocessing and precision stay as they were (default: that one)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)"
    )


@dataclass(frozen=True)
class LoadedRun:
    """A trained assistant, and the recordings it was trained on and tested with.

    Attributes:
        assistant: ready to watch.
        data: recordings by split; none for a folder whose data is not here.
    """

    assistant: LiveAssistant
    data: Mapping[str, ConversationSet]

    def task(self, wanted: str) -> Task:
        """A task by its JSON file, or by a recording's name; with the steps that are followed."""
        from proassist_lit.live.task import find_task

        splits = ("test", "val", "train")
        recordings = [c for split in splits for c in self.data.get(split, ())]
        return self._followed(find_task(wanted, recordings))

    def suggested(self, num: int) -> list[Task]:
        """Tasks to choose from where none is named: of the first ``num`` recordings of test.

        Raises:
            ConfigError: the recordings are not here.
        """
        from proassist_lit.live.task import task_of_recording

        if not self.data:
            return [self.no_task()]
        split = self.data.get("test") or self.data["val"]
        return [self._followed(task_of_recording(c)) for c in split.conversations[:num]]

    def no_task(self) -> Task:
        """The prompt of the training recordings alone.

        Raises:
            ConfigError: they are not here.
        """
        from proassist_lit.live.task import task_of_recording

        if not self.data:
            raise ConfigError(
                "the data that the assistant was trained on is not here, nor its prompt: give "
                '--task FILE.json with {"prompt": "...", "steps": [...]}.'
            )
        return task_of_recording(self.data["train"].conversations[0], steps=False)

    def _followed(self, task: Task) -> Task:
        return task if self.assistant.model.dst_head is not None else task.without_steps()


def load_run(arguments: argparse.Namespace) -> LoadedRun:
    """Load the run, or the folder of an assistant, that ``arguments`` name.

    The data of a run must be here; a folder does without.

    Raises:
        ProAssistError: there is no such run, its data or its encoder is missing, or it has no
            thresholds.
    """
    from proassist_lit.build import check_context
    from proassist_lit.data.dataset import load_data
    from proassist_lit.lit.quiet import quiet_libraries
    from proassist_lit.live.assistant import LiveAssistant
    from proassist_lit.live.thresholds import NAMES, with_thresholds
    from proassist_lit.model.as_streamed import make_plain
    from proassist_lit.vision.encoders import choose_device

    quiet_libraries()
    trained = find_trained(arguments.run, arguments.checkpoint, arguments.set)
    config, about = trained.config, trained.about
    device = choose_device(arguments.device)
    given = [
        name
        for name in (*NAMES, "rule")
        if any(s.startswith(f"stream.{name}=") for s in arguments.set)
    ]
    stream = with_thresholds(config.stream, trained.metrics, given=given)
    data = (
        load_data(config.data, as_released=config.reads_as_released)
        if about is None
        else _data_if_here(config)
    )
    encoder = _load_encoder(trained, data, device, arguments.encoder)
    model = trained.load_model()
    make_plain(model)
    check_context(config, model)
    assert model.chat is not None
    if about is not None:
        fps = about.fps
    elif config.data.is_prepared:
        fps = data["train"].conversations[0].fps
    else:
        fps = config.data.dialogue.fps
    assistant = LiveAssistant(
        model=model.to(device),
        chat=model.chat,
        config=stream,
        encoder=encoder,
        num_tokens_per_img=config.data.num_tokens_per_img,
        fps=fps,
    )
    return LoadedRun(assistant, data)


def _data_if_here(config: RunConfig) -> Mapping[str, ConversationSet]:
    """The data of an exported assistant; it is not drawn anew, and may be elsewhere."""
    from proassist_lit.data.dataset import load_data
    from proassist_lit.data.generate import is_generated

    try:
        if not config.data.is_prepared and not is_generated(config.data):  # reads annotations
            return {}
        return load_data(config.data, as_released=config.reads_as_released)
    except ProAssistError:
        return {}


def _load_encoder(
    trained: Trained,
    data: Mapping[str, ConversationSet],
    device: torch.device,
    name: str | None,
) -> FrameEncoder:
    from proassist_lit.live.run_encoder import (
        load_encoder_that_made,
        load_for_untold,
        load_run_encoder,
    )
    from proassist_lit.model.assistant_folder import DESCRIPTION

    about, data_config = trained.about, trained.config.data
    if about is not None and about.features:
        where = str(trained.folder / DESCRIPTION)
        return load_encoder_that_made(about.features, device, where=where, name=name)
    if data:
        return load_run_encoder(data["train"], device, name=name)
    if name is None and data_config.is_prepared:
        raise ConfigError(
            f"{trained.folder}: does not say which encoder made the features that it was trained "
            "on; name it by --encoder."
        )
    return load_for_untold(name or data_config.encoder, data_config, device)
