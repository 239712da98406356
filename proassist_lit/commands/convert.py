"""``proassist-lit convert``: between ProAssist's Arrow feature files and ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from proassist_lit.errors import ConfigError, ProAssistError


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "convert",
        help="convert feature files between ProAssist's format and ours",
        description="Convert feature files between ProAssist's Arrow streams and our safetensors, "
        "without a loss. Run again, it goes on where it was. Exit code 0: all are converted, 1: "
        "some could not be (they are listed at the end), 2: something given is wrong.",
    )
    parser.add_argument("source", type=Path, metavar="IN", help="a feature file, or a folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new files")
    parser.add_argument(
        "--to", required=True, choices=("arrow", "safetensors"), help="ProAssist's format, or ours"
    )
    parser.add_argument(
        "--fps",
        type=float,
        default=2.0,
        metavar="N",
        help="frames per second of files that do not say it, as ProAssist's (default: 2)",
    )
    parser.set_defaults(run_command=convert_features)


def convert_features(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from rich.console import Console
    from rich.progress import track

    from proassist_lit.encoding.convert import convert, find_conversions
    from proassist_lit.encoding.progress import list_failures

    if not arguments.fps > 0:
        raise ConfigError(f"--fps must be above 0, got {arguments.fps}; 2 is usual.")
    conversions = find_conversions(arguments.source, arguments.out, arguments.to)
    console = Console(stderr=True)
    num_files, failures = 0, list[ProAssistError]()
    for conversion in track(
        conversions, "Converting", console=console, transient=True, disable=not console.is_terminal
    ):
        try:
            num_files += convert(conversion, fps=arguments.fps)
        except ProAssistError as error:
            failures.append(error)
    num_before = len(conversions) - num_files - len(failures)
    before = f"; {num_before} were done before" if num_before else ""
    sys.stdout.write(f"converted {num_files} files into {arguments.out}{before}\n")
    if failures:
        sys.stderr.write(f"{len(failures)} of {len(conversions)} files were not converted:\n")
        sys.stderr.write(list_failures(failures))
    return 1 if failures else 0
