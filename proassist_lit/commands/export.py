"""``proassist-lit export``: a trained assistant as a folder that others can use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.evaluate import find_checkpoint
from proassist_lit.errors import CheckpointError, ProAssistError

if TYPE_CHECKING:
    from proassist_lit.exchange.description import Description
    from proassist_lit.model.assistant import AssistantModel


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "export",
        help="write a trained assistant as a folder of Hugging Face's layout",
        description="Write backbone or adapter, projector, heads, tokenizer, settings and a model "
        "card. The folder can be evaluated (proassist-lit evaluate DIR) and trained on "
        "(model.init_from=DIR). It appears whole or not at all.",
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
        help="of a run: the last state, whose metrics it has, or that of the lowest loss on val "
        "(default: last)",
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
    from transformers import AutoTokenizer

    from proassist_lit.build import build_model
    from proassist_lit.exchange.description import read_assistant
    from proassist_lit.model.assistant_folder import DESCRIPTION
    from proassist_lit.model.checkpoint import load_weights

    if (path / DESCRIPTION).is_file():
        about = read_assistant(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        return build_model(about.config, tokenizer, about.vision_size).eval(), about
    folder, checkpoint = find_checkpoint(path, which)
    about = _describe(folder, checkpoint, has_metrics=which == "last")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    model = build_model(about.config, tokenizer, about.vision_size)
    load_weights(model, checkpoint)
    return model.eval(), about


def _describe(folder: Path, checkpoint: Path, *, has_metrics: bool) -> Description:
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import read_config
    from proassist_lit.exchange.description import Description, with_thresholds
    from proassist_lit.model.checkpoint import read_checkpoint
    from proassist_lit.run_directory import RunDirectory

    config = read_config(RunConfig, folder / "config.yaml")
    state = read_checkpoint(checkpoint)
    if "projector.0.weight" not in state:
        raise CheckpointError(
            f"{checkpoint}: holds no projector (projector.0.weight is missing), so it is no "
            "checkpoint of a run; give one that training wrote."
        )
    try:
        metrics = RunDirectory(folder).read_metrics()
    except ProAssistError:
        metrics = {}
    return Description(
        config=with_thresholds(config, metrics),
        vision_size=int(state["projector.0.weight"].shape[1]),
        fps=config.data.dialogue.fps,
        metrics=metrics if has_metrics else {},
        train=config.model.train.value,
        command=_command(folder, config.name),
        origin=str(checkpoint),
    )


def _command(folder: Path, name: str) -> str:
    """The command line of a run, from what Hydra keeps of it."""
    import yaml

    path = folder / ".hydra" / "overrides.yaml"
    overrides = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    return " ".join(["python train.py", *map(str, overrides or [])]) if overrides else ""
