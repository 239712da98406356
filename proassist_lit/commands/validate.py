"""``proassist-lit validate``: every fault of prepared records, and what is in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proassist_lit.commands.terminal import (
    add_token_options,
    check_tokens,
    console,
    track,
    write,
    write_page,
)


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "validate",
        help="list every fault of prepared records, and count what is in them",
        description="List every fault of a data set at once, then show its statistics. Exit code "
        "0: no faults, 1: faults, 2: something cannot be read.",
    )
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="DATA",
        help=".jsonl or .json files, or folders of them",
    )
    parser.add_argument(
        "--features",
        metavar="ENCODER",
        help="check those in DATASET/features/ENCODER above the files, too (default: the only ones "
        "there, if any)",
    )
    add_token_options(parser)
    parser.set_defaults(run_command=validate)


def validate(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.report.data_chat import choose_chat
    from proassist_lit.report.data_features import check_features
    from proassist_lit.report.data_files import find_data_files, read_data_file
    from proassist_lit.report.data_report import DataReport
    from proassist_lit.report.data_statistics import gather_statistics

    check_tokens(arguments.tokens)
    found = find_data_files(arguments.data)
    for path in found.left_out:
        write(f"{path}: left out, holds no conversations\n")
    files = tuple(map(read_data_file, track(found.paths, "Reading", many=8)))
    conversations = [c for file in files for c in file.conversations]
    statistics, tokens = None, ""
    if conversations:
        chat, tokens = choose_chat(conversations, arguments.tokenizer, arguments.chat)
        statistics = gather_statistics(
            track(conversations, "Counting"), chat, num_tokens_per_img=arguments.tokens
        )
    features = check_features(files, arguments.features, arguments.tokens)
    report = DataReport(files=files, statistics=statistics, tokens=tokens, features=features)
    write("".join(f"{line}\n" for line in report.fault_lines()))
    console().print(report)
    if arguments.html:
        write_page(arguments.html, report.to_html())
    if not all(file.is_readable for file in files):
        return 2
    return 1 if report.num_faults else 0
