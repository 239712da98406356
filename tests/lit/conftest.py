from __future__ import annotations

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
