"""``judge.json``: everything that judges said of a run, by what was asked and by split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proassist_lit.atomic import write_text
from proassist_lit.errors import JudgeError


class ResultFile:
    """Results of one kind do not push out those of another.

    Args:
        path: the file; need not exist. It is read now.

    Raises:
        JudgeError: it is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._results = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._results = {}
        except (OSError, ValueError) as error:
            raise JudgeError(f"{path}: cannot be read: {error}; move it away.") from error
        if not isinstance(self._results, dict):
            raise JudgeError(f"{path}: holds no object; move it away.")

    def write_scores(self, split: str, result: dict[str, Any]) -> None:
        """Set ``scores``, ``split``."""
        self._results.setdefault("scores", {})[split] = result
        self._write()

    def write_comparison(self, other: Path, split: str, result: dict[str, Any]) -> None:
        """Set ``against``, the other run's directory, ``split``."""
        against = self._results.setdefault("against", {})
        against.setdefault(str(other), {})[split] = result
        self._write()

    def _write(self) -> None:
        write_text(self._path, json.dumps(self._results, indent=2, ensure_ascii=False) + "\n")
