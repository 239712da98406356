"""The ``proassist-lit`` command: look at data and runs, encode, evaluate, exchange.

What a command needs is imported when it runs: ``--help`` shall not wait seconds for torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from proassist_lit import __version__
from proassist_lit.commands import (
    convert,
    demo,
    encode,
    evaluate,
    export,
    import_,
    inspect,
    judge,
    prepare,
    report,
    runs,
    validate,
    watch,
)
from proassist_lit.errors import ProAssistError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0: all is well; 1: the data has faults; 2: something given is wrong or cannot be read, told in
    a line on stderr; 130: interrupted.
    """
    arguments = _arguments(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run_command
    try:
        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except ProAssistError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return 2


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed; settings may stand behind options, too, where argparse takes them for too many."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, "overrides") or any(map(_is_no_setting, rest))):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _is_no_setting(text: str) -> bool:
    return text.startswith("-") or "=" not in text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proassist-lit",
        description="Tools around proactive streaming assistants; python train.py trains one.",
    )
    parser.add_argument("--version", action="version", version=f"proassist-lit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    everything = (
        validate, inspect, encode, prepare, convert, evaluate, report, judge, runs, export,
        import_, watch, demo,
    )  # fmt: skip
    for command in everything:
        command.add_parser(commands)
    return parser
