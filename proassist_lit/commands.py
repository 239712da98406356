"""The ``proassist-lit`` command: look at data and at runs.

What a command needs is imported when it runs: ``--help`` shall not wait seconds for torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from proassist_lit import __version__
from proassist_lit.command_judge import add_judge
from proassist_lit.errors import ConfigError, ProAssistError

if TYPE_CHECKING:
    from rich.console import Console

    from proassist_lit.data.conversation import Conversation

_T = TypeVar("_T")

_MANY = 200
"""From this many records on, a progress bar is shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0: all is well; 1: the data has faults; 2: something given is wrong or cannot be read, told in
    a line on stderr; 130: interrupted.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except ProAssistError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proassist-lit",
        description="Tools around proactive streaming assistants; python train.py trains one.",
    )
    parser.add_argument("--version", action="version", version=f"proassist-lit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    validate = commands.add_parser(
        "validate",
        help="list every fault of prepared records, and count what is in them",
        description="List every fault of a data set at once, then show its statistics. Exit code "
        "0: no faults, 1: faults, 2: something cannot be read.",
    )
    validate.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="DATA",
        help=".jsonl or .json files, or folders of them",
    )
    _add_token_options(validate)
    validate.set_defaults(run=_validate)

    inspect = commands.add_parser(
        "inspect",
        help="show one training example: what the model sees, which loss is where",
        description="Show one training example as its tokens are: text, frames, and the loss that "
        "each bears.",
    )
    inspect.add_argument("data", type=Path, metavar="DATA", help=".jsonl or .json file, or folder")
    inspect.add_argument(
        "--index", type=int, default=0, metavar="N", help="which record, from 0 (default: 0)"
    )
    _add_token_options(inspect)
    inspect.add_argument(
        "--max-seq-len",
        type=_count,
        metavar="T",
        help="longest sequence, tokens (default: as in training)",
    )
    inspect.add_argument(
        "--objective",
        choices=("per_token", "per_turn", "token_prob"),
        help="where decisions are trained (default: as in training)",
    )
    inspect.add_argument(
        "--compat",
        choices=("none", "proassist"),
        default="none",
        help="whose rules make the sequence; with proassist and --chat dst_ext those of its DST "
        "extension (default: none, ours)",
    )
    inspect.add_argument(
        "--rho",
        type=float,
        metavar="SHARE",
        help="share of silent decisions trained on (default: as in training)",
    )
    inspect.add_argument(
        "--turn-frames",
        type=int,
        metavar="N",
        help="per_turn: silent frames of a turn (default: as in training)",
    )
    inspect.add_argument(
        "--epoch",
        type=int,
        default=0,
        metavar="N",
        help="epoch whose sub-sampling is shown (default: 0)",
    )
    inspect.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of the run (default: 1)"
    )
    inspect.set_defaults(run=_inspect)

    runs = commands.add_parser("runs", help="show the table of a multirun")
    runs.add_argument("directory", type=Path, metavar="DIR", help="directory of the multirun")
    runs.set_defaults(run=_runs)
    add_judge(commands)
    return parser


def _add_token_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="folder of a Hugging Face tokenizer, that of a run for one (default: "
        "a byte-pair tokenizer trained on DATA, as for the tiny model)",
    )
    parser.add_argument(
        "--chat", metavar="NAME", help="chat format (default: that of the tokenizer)"
    )
    parser.add_argument(
        "--tokens",
        type=_count,
        metavar="K",
        help="tokens per image (default: what each record says)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to FILE, too")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _validate(arguments: argparse.Namespace) -> int:
    from proassist_lit.report.data_chat import choose_chat
    from proassist_lit.report.data_files import find_data_files, read_data_file
    from proassist_lit.report.data_report import DataReport
    from proassist_lit.report.data_statistics import gather_statistics

    found = find_data_files(arguments.data)
    for path in found.left_out:
        _write(f"{path}: left out, holds no conversations\n")
    files = tuple(map(read_data_file, _track(found.paths, "Reading", many=8)))
    conversations = [c for file in files for c in file.conversations]
    statistics, tokens = None, ""
    if conversations:
        chat, tokens = choose_chat(conversations, arguments.tokenizer, arguments.chat)
        statistics = gather_statistics(
            _track(conversations, "Counting"), chat, num_tokens_per_img=arguments.tokens
        )
    report = DataReport(files=files, statistics=statistics, tokens=tokens)
    _write("".join(f"{line}\n" for line in report.fault_lines()))
    _console().print(report)
    if arguments.html:
        _write_page(arguments.html, report.to_html())
    if not all(file.is_readable for file in files):
        return 2
    return 1 if report.num_faults else 0


def _inspect(arguments: argparse.Namespace) -> int:
    from proassist_lit.data.config import DataConfig
    from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
    from proassist_lit.report.data_chat import choose_chat
    from proassist_lit.report.data_files import find_data_files, read_data_file
    from proassist_lit.report.example_report import example_page, terminal_view
    from proassist_lit.report.example_view import view_example
    from proassist_lit.sequence.rules import rules_for

    chosen = {"rho": arguments.rho, "turn_frames": arguments.turn_frames}
    if arguments.objective:
        chosen["kind"] = ObjectiveKind(arguments.objective)
    objective = ObjectiveConfig(**{k: v for k, v in chosen.items() if v is not None})
    paths = find_data_files([arguments.data]).paths
    conversations: list[Conversation] = []
    for file in map(read_data_file, _track(paths, "Reading", many=8)):
        if file.faults:
            raise file.faults[0]
        conversations += file.conversations
    if not 0 <= arguments.index < len(conversations):
        raise ConfigError(
            f"--index {arguments.index}: {arguments.data} holds {len(conversations)} records; "
            f"give 0 to {len(conversations) - 1}."
        )
    conversation = conversations[arguments.index]
    chat, tokens = choose_chat(conversations, arguments.tokenizer, arguments.chat)
    view = view_example(
        conversation,
        chat,
        num_tokens_per_img=arguments.tokens or conversation.num_tokens_per_img,
        max_seq_len=arguments.max_seq_len or DataConfig().max_seq_len,
        rho=objective.rho,
        turn_frames=objective.sampled_turn_frames,
        seed=arguments.seed,
        epoch=arguments.epoch,
        rules=rules_for(arguments.compat != "none", chat.format.name),
    )
    how = f"objective {objective.kind.value}, rho {objective.rho:g}, epoch {arguments.epoch}"
    if objective.sampled_turn_frames:
        how += f", turns of {objective.turn_frames} silent frames"
    if arguments.compat != "none":
        how += f", rules of {arguments.compat}"
    notes = (how, tokens)
    _console().print(terminal_view(view, notes))
    if arguments.html:
        _write_page(arguments.html, example_page(view, notes))
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from proassist_lit.report.tables import multirun_table

    _console().print(multirun_table(arguments.directory))
    return 0


def _track(items: Sequence[_T], description: str, *, many: int = _MANY) -> Iterable[_T]:
    """``items``, with a progress bar on stderr where a person waits for many."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        items,
        description,
        console=console,
        transient=True,
        disable=len(items) < many or not console.is_terminal,
    )


def _console() -> Console:
    from rich.console import Console

    # A file or pipe has no width to keep to.
    return Console(width=None if sys.stdout.isatty() else 200)


def _write_page(path: Path, page: str) -> None:
    from proassist_lit.atomic import write_text

    try:
        write_text(path, page)
    except OSError as error:
        raise ConfigError(
            f"--html {path}: cannot be written: {error.strerror or error}. Name another file."
        ) from error
    _write(f"wrote {path}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
