"""One process at a time in a directory, on the machines that share it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from proassist_lit.errors import ConfigError


@contextmanager
def alone_in(
    directory: Path, *, waiting: str = "", wait_s: float = -1.0, refusal: str = ""
) -> Iterator[None]:
    """Keep others that ask for the same out of ``directory``; its file ``.lock`` stays.

    A process that was killed holds nothing, though its loaders may end some seconds after it.

    Args:
        directory: which is there.
        waiting: what stderr is told, in a line, if another process is at work; empty for nothing.
        wait_s: seconds to wait for its end; negative for as long as it takes.
        refusal: what is said if it did not end.

    Raises:
        ConfigError: it did not end.
    """
    lock = FileLock(directory / ".lock")
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if waiting:
                sys.stderr.write(f"{waiting}\n")
            lock.acquire(timeout=wait_s)
    except Timeout:
        raise ConfigError(refusal) from None
    except (OSError, NotImplementedError) as error:  # no locks on this disk, or another user's
        sys.stderr.write(
            f"{directory}: cannot be locked ({error}); see to it that no other process works in "
            "it.\n"
        )
    try:
        yield
    finally:
        lock.release()


def is_taken(directory: Path) -> bool:
    """Whether a process keeps others out of ``directory``, which is there."""
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # cannot be locked, so nobody has
        return False
    lock.release()
    return False
