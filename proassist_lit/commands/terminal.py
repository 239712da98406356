"""What the commands have in common: progress, width, options about tokens, places to write to."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from proassist_lit.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

_T = TypeVar("_T")

_MANY = 200
"""From this many records on, a progress bar is shown."""


def add_token_options(parser: argparse.ArgumentParser) -> None:
    """Options about tokenizer, chat format, and the page to write."""
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
        type=count,
        metavar="K",
        help="tokens per image: 1, 5, 10 or 26 (default: what each record says)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to FILE, too")


def count(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def check_tokens(tokens: int | None) -> None:
    """Refuse a ``--tokens`` that no grids make; None is always right.

    Raises:
        ConfigError: naming the numbers there are.
    """
    from proassist_lit.vision.encoder import GRIDS

    if tokens is not None and tokens not in GRIDS:
        raise ConfigError(f"--tokens {tokens}: choose one of {', '.join(map(str, GRIDS))}.")


def track(items: Sequence[_T], description: str, *, many: int = _MANY) -> Iterable[_T]:
    """``items``, with a progress bar on stderr where a person waits for many."""
    from rich import progress
    from rich.console import Console

    terminal = Console(stderr=True)
    return progress.track(
        items,
        description,
        console=terminal,
        transient=True,
        disable=len(items) < many or not terminal.is_terminal,
    )


def console() -> Console:
    """What tables are printed on."""
    from rich.console import Console

    # A file or pipe has no width to keep to.
    return Console(width=None if sys.stdout.isatty() else 200)


@contextmanager
def writing_to(option: str, path: Path) -> Iterator[None]:
    """Say in one line that the place which an option names cannot be written to.

    Raises:
        ConfigError: what is done here failed to write.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: cannot be written to ({error.strerror or error}); choose another."
        ) from error


def ready_folder(option: str, folder: Path) -> None:
    """Make a folder, and see that it can be written to: before the work, not behind it.

    Raises:
        ConfigError: it cannot.
    """
    with writing_to(option, folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def ready_file(option: str, path: Path) -> None:
    """Make the folder of a file, and see that the file can be written.

    Raises:
        ConfigError: it cannot.
    """
    with writing_to(option, path):
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def write_page(path: Path, page: str) -> None:
    """Write a page to where ``--html`` says, and say so.

    Raises:
        ConfigError: it cannot be written there.
    """
    from proassist_lit.atomic import write_text

    with writing_to("--html", path):
        write_text(path, page)
    write(f"wrote {path}\n")


def write(text: str) -> None:
    """Write to stdout."""
    sys.stdout.write(text)
