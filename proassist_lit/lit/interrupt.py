"""Ctrl-C, which Lightning makes an exit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C leave a Trainer as ``KeyboardInterrupt``, and be heard behind it.

    Lightning has the process ignore it from then on and exits with code 1: what is closed behind
    training could not be stopped, and whoever waits would take it for an error.

    Raises:
        KeyboardInterrupt: in the place of Lightning's ``SystemExit``.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if before is not None and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
