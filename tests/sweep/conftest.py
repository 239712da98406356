from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from proassist_lit.sweep import study


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
