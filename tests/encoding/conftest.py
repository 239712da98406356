"""Short videos and a network to encode them with, made once for this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vision.clips import make_clip, noise
from tests.vision.tiny_networks import save


@pytest.fixture(scope="package")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short videos of different lengths, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("videos")
    for i, length in enumerate((90, 20, 55, 8, 70)):
        name = f"deep/v{i}.mp4" if i == 2 else f"v{i}.mp4"
        make_clip(folder / name, [40 * t for t in range(length)], pictures=noise(length))
    return folder


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("siglip", tmp_path_factory.mktemp("network"))
