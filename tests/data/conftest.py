from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from proassist_lit.data.config import DataConfig
from proassist_lit.data.generate import generate
from tests.data.generated import data_config
from tests.data.tea_videos import encode


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a generated data set, made once for this folder; tests leave it as it is."""
    cache = tmp_path_factory.mktemp("cache")
    generate(data_config(cache))
    return cache


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> DataConfig:
    """The data set again, to be damaged."""
    shutil.copytree(made, tmp_path / "cache")
    return data_config(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of six encoded videos of 20 s, without records."""
    for i in range(6):
        encode(tmp_path / "tea", f"v{i}")
    return tmp_path / "tea"
