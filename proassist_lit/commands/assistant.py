"""What the commands with a trained assistant have in common: a run, loaded and ready to watch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from proassist_lit.commands.evaluate import find_checkpoint, override

if TYPE_CHECKING:
    from proassist_lit.data.dataset import ConversationSet
    from proassist_lit.live.assistant import LiveAssistant
    from proassist_lit.live.task import Task


def add_assistant_options(parser: argparse.ArgumentParser) -> None:
    """Options that say who watches."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run's directory, or a .ckpt file in one"
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
        help="as of encode (default: the one that the run's features were made with)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)"
    )


@dataclass(frozen=True)
class LoadedRun:
    """A trained assistant, and the recordings it was trained on and tested with.

    Attributes:
        assistant: ready to watch.
        data: recordings by split.
    """

    assistant: LiveAssistant
    data: Mapping[str, ConversationSet]

    def task(self, wanted: str) -> Task:
        """A task by its JSON file, or by a recording's name."""
        from proassist_lit.live.task import find_task

        splits = ("test", "val", "train")
        return find_task(wanted, [c for split in splits for c in self.data.get(split, ())])

    def no_task(self) -> Task:
        """The prompt of the training recordings alone."""
        from proassist_lit.live.task import task_of_recording

        return task_of_recording(self.data["train"].conversations[0], steps=False)


def load_run(arguments: argparse.Namespace) -> LoadedRun:
    """Load the run that ``arguments`` name.

    Raises:
        ProAssistError: there is no such run, its data or its encoder is missing, or it has no
            thresholds.
    """
    from proassist_lit.build import build_core
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import read_config
    from proassist_lit.data.config import Source
    from proassist_lit.lit.quiet import quiet_libraries
    from proassist_lit.live.assistant import LiveAssistant
    from proassist_lit.live.run_encoder import load_run_encoder
    from proassist_lit.live.thresholds import NAMES, with_thresholds
    from proassist_lit.model.checkpoint import load_weights
    from proassist_lit.run_directory import RunDirectory
    from proassist_lit.vision.encoders import choose_device

    quiet_libraries()
    folder, checkpoint = find_checkpoint(arguments.run, arguments.checkpoint)
    config = override(read_config(RunConfig, folder / "config.yaml"), arguments.set)
    # Nothing is scored here: no similarity model needs to be loaded.
    config = replace(config, evaluation=replace(config.evaluation, similarity="words"))
    device = choose_device(arguments.device)
    metrics = RunDirectory(folder).read_metrics()
    given = [name for name in NAMES if any(s.startswith(f"stream.{name}=") for s in arguments.set)]
    stream = with_thresholds(config.stream, metrics, given=given)
    tokenizer = folder / "tokenizer"
    core = build_core(config, tokenizer_folder=tokenizer if tokenizer.is_dir() else None)
    load_weights(core.model, checkpoint)
    first = core.data["train"].conversations[0]
    drawn = config.data.source in (Source.TOY, Source.CAPTAINCOOK4D)
    assistant = LiveAssistant(
        model=core.model.to(device).eval(),
        chat=core.chat,
        config=stream,
        encoder=load_run_encoder(core.data["train"], device, name=arguments.encoder),
        num_tokens_per_img=config.data.num_tokens_per_img,
        fps=config.data.dialogue.fps if drawn else first.fps,
    )
    return LoadedRun(assistant, core.data)
