"""The thread that runs the model, for one session after the other."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from proassist_lit.demo.messages import Refusal
from proassist_lit.demo.viewer import Viewer

_log = logging.getLogger(__name__)


class Worker:
    """One thread, and the sessions that have a frame for it, in the order they came.

    A session stands in the queue once at most, so that the queue is as long as there are sessions
    and each of them has its turn.
    """

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def watch(self, viewer: Viewer) -> None:
        """Let ``viewer`` watch the frame that waits, when it is its turn."""
        with self._changed:
            if viewer.is_queued:
                return
            viewer.is_queued = True
        self.call(lambda: self._watch(viewer))

    def call(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the model's thread, after what was there before."""
        with self._changed:
            self._queue.append(work)
            self._changed.notify()

    def _watch(self, viewer: Viewer) -> None:
        with self._changed:
            viewer.is_queued = False  # a frame that comes from now on is another turn
        try:
            viewer.watch()
        except Exception:  # a fault of ours costs one session, not the server
            _log.exception("a session failed")
            viewer.end(Refusal("failed", "the assistant failed; the server's log says how"))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._stopped:
                        return
                    self._changed.wait()
                work = self._queue.popleft()
            try:
                work()
            except Exception:
                _log.exception("work of the model's thread failed")
