"""The command line in this process, over the real config files."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proassist_lit.cli import run_app
from proassist_lit.config import RunConfig

REPO_CONF = Path(__file__).parents[1] / "conf"


@dataclass
class App:
    """The command line in this process, with a job that only notes what it got."""

    conf_dir: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    jobs: list[tuple[RunConfig, Path]] = field(default_factory=list)
    error: BaseException | None = None
    out: str = ""
    err: str = ""

    def job(self, config: RunConfig, run_dir: Path) -> float:
        self.jobs.append((config, run_dir))
        if self.error is not None and config.seed == 1:
            raise self.error
        (run_dir / "metrics.json").write_text(json.dumps({"test/utterance_f1": config.seed / 10}))
        return 0.5

    def __call__(self, *argv: str) -> int:
        """Run with these arguments; return the exit code."""
        self.monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        code = 0
        try:
            run_app(self.job, conf_dir=self.conf_dir)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
        finally:
            self.out, self.err = self.capsys.readouterr()
        return code

    def said(self) -> str:
        """The one line of error."""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("error: ")
        return self.err.strip()


@contextmanager
def app_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[App]:
    """An app over the real config files and one nested group, in an empty directory."""
    conf_dir = tmp_path / "conf"
    shutil.copytree(REPO_CONF, conf_dir)
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", "PROASSIST_LIT_RUN_DIR", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield App(conf_dir, capsys, monkeypatch)
    for handler in set(root.handlers) - set(handlers):  # Hydra's, with a file open
        root.removeHandler(handler)
        handler.close()
    for handler in set(handlers) - set(root.handlers):
        root.addHandler(handler)
    root.setLevel(level)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
