"""Answers on disk: what a judge was paid for is kept at once, and never asked again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from proassist_lit.errors import JudgeError
from proassist_lit.judge.answer import Answer
from proassist_lit.judge.request import Request, distinct
from proassist_lit.judge.usage import Usage


class AnswerFile:
    """One JSON object a line, appended; a line that was cut by a crash is passed over.

    Args:
        path: the file; need not exist. It is read now, and made by ``appending``.

    Raises:
        JudgeError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._answers = self._read()

    def __contains__(self, request: Request) -> bool:
        return request.key in self._answers

    def get(self, request: Request) -> Answer | None:
        """The kept answer; None if there is none."""
        return self._answers.get(request.key)

    def find(self, requests: Iterable[Request]) -> list[Answer]:
        """The kept answers to ``requests``, in their order; fewer where some are missing."""
        return [answer for request in requests if (answer := self.get(request)) is not None]

    def usage(self, requests: Iterable[Request]) -> Usage:
        """What the kept answers to ``requests`` took, whenever they were asked."""
        usage = Usage()
        for answer in self.find(distinct(requests)):
            usage = usage.plus(answer)
        return usage

    @contextmanager
    def appending(self) -> Iterator[AnswerFile]:
        """Open for ``add``, by one process at a time; reads again what others have added.

        Raises:
            JudgeError: another process is at it, or the file cannot be written.
        """
        import filelock

        lock = filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise JudgeError(
                f"{self.path}: another process is adding answers; wait until it has ended."
            ) from error
        except OSError as error:
            raise self._cannot("written", error) from error
        try:
            self._answers = self._read()
            with self._open() as self._file:
                yield self
        finally:
            self._file = None
            lock.release()

    def _open(self) -> FileIO:
        try:
            file = self.path.open("a+b", buffering=0)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # the last line was cut: what follows is a line of its own
        except OSError as error:
            raise self._cannot("written", error) from error
        return file

    def add(self, request: Request, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            JudgeError: it cannot be written.
        """
        assert self._file is not None, "only within appending()"
        about = {"key": request.key, "stream_id": request.stream_id, "repeat": request.repeat}
        line = json.dumps(about | {"asked": request.settings.model} | asdict(answer))
        data = line.encode() + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError("the disk took a part of a line only")
            os.fsync(self._file)
        except OSError as error:
            raise self._cannot("written", error) from error
        self._answers[request.key] = answer

    def _read(self) -> dict[str, Answer]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._cannot("read", error) from error
        rows = (_row(line) for line in data.split(b"\n"))
        return dict(row for row in rows if row is not None)

    def _cannot(self, verb: str, error: OSError) -> JudgeError:
        return JudgeError(
            f"{self.path}: cannot be {verb}: {error.strerror or error}. Answers are kept there as "
            "they come; mend that and run the command again."
        )


def _row(line: bytes) -> tuple[str, Answer] | None:
    """Key and answer of a line; None if it is not a whole one."""
    try:
        row: dict[str, Any] = json.loads(line)
        answer = Answer(
            text=row["text"],
            finish_reason=row["finish_reason"],
            model=row["model"],
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
        )
        return str(row["key"]), answer
    except (ValueError, KeyError, TypeError):
        return None
