from __future__ import annotations

from pathlib import Path

import pytest

from .trained import TrainedRun, make_run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run that was never trained, but decides and speaks."""
    return make_run(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="package")
def film(run: TrainedRun) -> Path:
    """One of its recordings as a video without loss."""
    return run.film(run.folder.parent / "film.mkv")
