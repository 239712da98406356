from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from proassist_lit.sweep import study
from tests.app import REPO_CONF
from tests.sweep.programs import PROGRAM
from tests.sweep.searching import FakeLauncher


@pytest.fixture(scope="session")
def no_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data base without a study: to make its tables takes longer than a search."""
    folder = tmp_path_factory.mktemp("no_study")
    with study.open_storage(folder):
        return folder / "study.db"


@pytest.fixture
def quick_study(no_study: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder in which a search begins at once."""
    monkeypatch.setattr(study, "RDBStorage", partial(RDBStorage, skip_compatibility_check=True))

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        shutil.copy(no_study, folder)

    return make


@pytest.fixture
def launcher(
    quick_study: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeLauncher:
    for folder in (tmp_path, tmp_path / "other"):
        quick_study(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "+sweep=x", "seed=2", "hydra.sweep.dir=y"])
    return FakeLauncher(tmp_path)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "train.py").write_text(PROGRAM.replace("CONF", repr(str(REPO_CONF))))

    def start(*arguments: str, **at: str) -> subprocess.Popen[str]:
        """``at``: waits_at, fails_at, dies_at or time_up_at, a job's number."""
        return subprocess.Popen(
            [sys.executable, "train.py", *arguments], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env=os.environ | {name.upper(): n for name, n in at.items()} | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return start
