from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lit.resuming import Weights, Whole, config, fit


@pytest.fixture(scope="package")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> Whole:
    """Folder and weights of a run that nobody stopped, by the batches of a step."""
    base, done = tmp_path_factory.mktemp("whole"), {}

    def train(accumulate: int) -> tuple[Path, Weights]:
        if accumulate not in done:
            folder = base / f"run{accumulate}"
            done[accumulate] = folder, fit(config(base / "data", accumulate=accumulate), folder)
        return done[accumulate]

    return train


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which a Slurm that is not there writes what it is asked."""
    asked, program = tmp_path / "asked", tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return asked
