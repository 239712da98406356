"""``proassist-lit import``: an assistant of another layout as a folder to evaluate or train on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from proassist_lit.errors import CheckpointError


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "import",
        help="read a checkpoint of ProAssist, its DST extension, or an exported folder",
        description="Read an assistant, check every tensor, merge its adapters, and write it as a "
        "folder of Hugging Face's layout, which can be evaluated (proassist-lit evaluate DIR "
        "data.root=...) and trained on (model.init_from=DIR). ProAssist's head, which predicts "
        "silence, is turned around. Nothing in the files is executed.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="folder of the checkpoint, or one that export wrote",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="backbone of the checkpoint, a folder or id (default: what the checkpoint names)",
    )
    parser.set_defaults(run_command=import_)


def import_(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.commands.export import load_assistant
    from proassist_lit.exchange.proassist_folder import is_proassist
    from proassist_lit.exchange.proassist_in import read_proassist
    from proassist_lit.exchange.write import write_assistant
    from proassist_lit.lit.quiet import quiet_libraries
    from proassist_lit.model.assistant_folder import DESCRIPTION

    quiet_libraries()
    source: Path = arguments.source
    if (source / DESCRIPTION).is_file():
        model, about = load_assistant(source)
    elif is_proassist(source):
        model, about = read_proassist(source, arguments.base)
    else:
        raise CheckpointError(
            f"{source}: holds neither {DESCRIPTION} (an exported folder) nor a config.json with "
            "vision_hidden_size (a checkpoint of ProAssist or its DST extension) nor an "
            "adapter_config.json with mm_projector in modules_to_save (an adapter of the "
            "extension); give the folder that holds one."
        )
    write_assistant(arguments.out, model, about, merge=True)
    sys.stdout.write(f"wrote {arguments.out}\n")
    return 0
