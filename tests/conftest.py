"""One thread per process: the models here are so small that threads only wait for each other.

What importing and collecting leave behind stays until the end: it is not searched for garbage.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.app import App

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, in each worker too
gc.disable()  # until everything is collected


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def app(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[App]:
    """The command line in this process, with a job that only notes what it got."""
    from tests.app import app_in

    with app_in(tmp_path, capsys, monkeypatch) as app:
        yield app
