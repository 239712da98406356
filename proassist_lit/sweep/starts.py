"""How often a trial was begun in vain: one whose process dies each time is put behind others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from hydra.conf import HydraConf

from proassist_lit.atomic import write_text
from proassist_lit.directory_lock import is_taken
from proassist_lit.job_result import JobResult
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sweep.settings import TARGET

MOST_STARTS = 3
"""Starts in a row that come to nothing, after which a trial waits for all others."""


class Starts:
    """Counts the starts of a trial since it got further, where each ended with its process.

    A file in the sweep's directory says that the trial was begun. Whatever is raised removes it,
    Ctrl-C and signals too: only a process that died (killed, out of memory, crashed) leaves it. The
    count begins anew whenever there is more to go on from than at the start before.

    Args:
        sweep_dir: directory of the search.
        number: of the trial.
    """

    def __init__(self, sweep_dir: Path, number: int) -> None:
        self._file = sweep_dir / ".starts" / f"{number}.json"

    @classmethod
    def of_job(cls, hydra: HydraConf, sweep_dir: Path) -> Self | None:
        """Those of a job of a search, from Hydra's settings; None of any other multirun's."""
        if hydra.sweeper.get("_target_") != TARGET:
            return None
        return cls(sweep_dir, int(hydra.job.num))

    @property
    def num(self) -> int:
        """Starts that came to nothing; 0 while a process is at work on the trial."""
        kept = self._read()
        if kept is None or is_taken(Path(kept["run_dir"])):
            return 0
        return self._num_of(kept)

    @contextmanager
    def counted(self, run_dir: Path) -> Iterator[None]:
        """Count a start as one that comes to nothing, until it ends in good order.

        Args:
            run_dir: of the trial, which no other process works in meanwhile.
        """
        kept = self._read()
        num = self._num_of(kept) if kept else 0
        begun = {"num": num + 1, "run_dir": str(run_dir), "from": _to_go_on_from(run_dir)}
        write_text(self._file, json.dumps(begun) + "\n")
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Count from 0 again."""
        self._file.unlink(missing_ok=True)

    @property
    def died(self) -> bool:
        """Whether its last process died, or is still at work."""
        return self._read() is not None

    def _read(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return kept if Path(kept["run_dir"]).is_dir() else None  # else it was removed

    @staticmethod
    def _num_of(kept: dict[str, Any]) -> int:
        run_dir = Path(kept["run_dir"])
        got_further = JobResult.read(run_dir) or kept["from"] != _to_go_on_from(run_dir)
        return 0 if got_further else int(kept["num"])


def _to_go_on_from(run_dir: Path) -> str:
    """What the next start takes over, as a text: another one whenever a start left more of it."""
    run, digest = RunDirectory(run_dir), blake2b(digest_size=16)
    for path in sorted([*run.checkpoints.glob("*"), *run.answers.glob("*")]):
        if path.name.startswith("."):  # a part of a file that a kill left
            continue
        with suppress(FileNotFoundError):  # a job that is still at work clears up
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
