"""The sessions of a server: bounded in number and length, kept for a while without a client."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proassist_lit.demo.limits import Limits
from proassist_lit.demo.messages import Refusal
from proassist_lit.demo.recorder import Recorder
from proassist_lit.demo.viewer import Viewer
from proassist_lit.demo.worker import Worker
from proassist_lit.errors import ProAssistError
from proassist_lit.live.assistant import LiveAssistant
from proassist_lit.live.task import Task

_log = logging.getLogger(__name__)


class Holder(Protocol):
    """A connection, as one that has a session."""

    def replace(self) -> None:
        """Another connection has gone on with the session."""


@dataclass
class _Entry:
    viewer: Viewer
    begun_s: float
    lost_s: float | None  # since when it has no client
    connection: Holder | None  # who has it


class Sessions:
    """All sessions, by ids that nobody can guess.

    Args:
        assistant: who watches.
        tasks: what may be watched, by name.
        limits: of the server.
        worker: runs the model.
        record: folder below which sessions are kept; None to keep nothing.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        assistant: LiveAssistant,
        tasks: Mapping[str, Task],
        limits: Limits,
        worker: Worker,
        *,
        record: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.assistant, self.tasks, self.limits = assistant, tasks, limits
        self._worker, self._record, self._now = worker, record, now
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, task_name: str, connection: Holder) -> tuple[str, Viewer]:
        """A new session; its id and itself.

        Raises:
            Refusal: there is no such task, no place for another session, or none to keep it in.
        """
        self.sweep()
        task = self.tasks.get(task_name or next(iter(self.tasks)))
        if task is None:
            raise Refusal("unknown_task", "there is no such task")
        if len(self._entries) >= self.limits.max_sessions:
            raise Refusal("full", f"all {self.limits.max_sessions} places are taken; try later")
        try:
            session = self.assistant.session(task)
            recorder = Recorder.below(self._record, self.assistant.fps) if self._record else None
        except ProAssistError as error:
            _log.error("no session could be begun: %s", error)
            raise Refusal("failed", "the server cannot begin a session") from error
        session_id = secrets.token_urlsafe(24)
        viewer = Viewer(session, task, self.limits, recorder)
        self._entries[session_id] = _Entry(viewer, self._now(), None, connection)
        return session_id, viewer

    def resume(self, session_id: str, connection: Holder) -> Viewer | None:
        """The session of a client that comes back; None if it is gone.

        A connection that still has it loses it: its end is often noticed late.
        """
        self.sweep()
        entry = self._entries.get(session_id)
        if entry is None:
            return None
        if entry.connection is not None:
            entry.connection.replace()
        entry.lost_s, entry.connection = None, connection
        return entry.viewer

    def lose(self, session_id: str, connection: Holder) -> None:
        """The connection is gone; the session waits for its client to come back."""
        entry = self._entries.get(session_id)
        if entry is not None and entry.connection is connection:
            entry.lost_s, entry.connection = self._now(), None
            if entry.viewer.ended is not None:
                self.end(session_id)

    def end(self, session_id: str) -> None:
        """The session is over."""
        entry = self._entries.pop(session_id, None)
        if entry is not None:
            entry.viewer.end(Refusal("over", "the session is over"))
            self._worker.call(entry.viewer.close)

    def sweep(self) -> None:
        """End those that lasted too long, or whose client did not come back."""
        for session_id, entry in list(self._entries.items()):
            if entry.lost_s is not None and self._now() - entry.lost_s > self.limits.keep_s:
                self.end(session_id)
            elif self._now() - entry.begun_s > 60 * self.limits.max_minutes:
                entry.viewer.end(
                    Refusal("over", f"a session lasts {self.limits.max_minutes:g} minutes")
                )
                self.end(session_id)

    def end_all(self) -> None:
        """The server goes."""
        for session_id in list(self._entries):
            self.end(session_id)
