"""``proassist-lit export``: a trained assistant as a folder that others can use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.trained import Trained, find_trained
from proassist_lit.errors import ProAssistError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proassist_lit.config import RunConfig
    from proassist_lit.exchange.description import Description
    from proassist_lit.model.assistant import AssistantModel


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "export",
        help="write a trained assistant as a folder of Hugging Face's layout",
        description="Write backbone or adapter, projector, heads, tokenizer, settings and a model "
        "card. The folder can be evaluated (proassist-lit evaluate DIR), watch videos "
        "(proassist-lit watch DIR) and be trained on (model.init_from=DIR). It appears whole or "
        "not at all.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run's directory, a .ckpt file in one, or a folder "
        "that export or import wrote",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="of a run: the last state, of which its metrics and thresholds are, or that of the "
        "lowest loss on val, with those of its newest evaluation, if any (default: last)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="put low-rank additions into the weights instead of writing an adapter",
    )
    parser.add_argument(
        "--layout",
        choices=("huggingface", "proassist"),
        default="huggingface",
        help="proassist: that of ProAssist, or with a dst head of its DST extension, polarity of "
        "the head included (default: huggingface)",
    )
    parser.set_defaults(run_command=export)


def export(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.exchange.proassist_out import write_proassist
    from proassist_lit.exchange.write import write_assistant
    from proassist_lit.lit.quiet import quiet_libraries

    quiet_libraries()
    model, about = load_assistant(arguments.run, arguments.checkpoint)
    write = write_assistant if arguments.layout == "huggingface" else write_proassist
    write(arguments.out, model, about, merge=arguments.merge)
    sys.stdout.write(f"wrote {arguments.out}\n")
    return 0


def load_assistant(path: Path, which: str = "last") -> tuple[AssistantModel, Description]:
    """A trained model, and what is known of it.

    Args:
        path: a run's directory, a checkpoint in one, or the folder of an assistant.
        which: ``last`` or ``best``, of a run.

    Raises:
        ProAssistError: it cannot be found or read, or its files are not those of the model.
    """
    trained = find_trained(path, which)
    model = trained.load_model()
    return model, trained.about or _describe(trained)


def _describe(trained: Trained) -> Description:
    from proassist_lit.exchange.description import Description, with_thresholds

    config, metrics = trained.config, trained.metrics
    fps, features = _features(config)
    return Description(
        config=with_thresholds(config, metrics),
        vision_size=trained.vision_size(),
        fps=fps,
        metrics=metrics,
        train=config.model.train.value,
        command=_command(trained.folder),
        origin=str(trained.checkpoint),
        features=features,
    )


def _features(config: RunConfig) -> tuple[float, Mapping[str, Any]]:
    """Frames per second of the data, and how its features were made, as far as is known."""
    from proassist_lit.data.dataset import load_data
    from proassist_lit.live.run_encoder import read_how_made

    if not config.data.is_prepared:
        return config.data.dialogue.fps, {}
    try:
        data = load_data(config.data, as_released=config.reads_as_released)["train"]
    except ProAssistError as error:
        fps = config.data.dialogue.fps
        sys.stderr.write(
            f"the data of the run is not here, {fps:g} frames a second are taken for its own, and "
            f"its encoder will have to be named: {error}\n"
        )
        return fps, {}
    try:
        made = read_how_made(data)
    except ProAssistError:
        made = {}  # of ProAssist's own features, say, which tell nothing
    return data.conversations[0].fps, made


def _command(folder: Path) -> str:
    """The command line of a run, from its notes; of older runs from what Hydra keeps."""
    import yaml

    from proassist_lit.run_directory import RunDirectory

    if command := RunDirectory(folder).read_notes().get("command"):
        return command

    path = folder / ".hydra" / "overrides.yaml"
    overrides = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    return " ".join(["python train.py", *map(str, overrides or [])]) if overrides else ""
