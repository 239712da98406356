"""A folder takes features of one kind of settings only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proassist_lit.encoding.jobs import Job
from proassist_lit.encoding.manifest import MANIFEST, Settings, claim_folder, is_done
from proassist_lit.errors import ConfigError
from proassist_lit.vision.encoders import load_encoder
from tests.encoding.runs import FPS, GRIDS, run


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fps": 2.0}, r"fps 4\.0, now 2\.0"),
        ({"grids": ("cls",)}, r"grids \['cls', '2x2'\], now \['cls'\]"),
        ({"file_format": "arrow"}, "format safetensors, now arrow"),
    ],
)
def test_folder_of_other_settings_is_refused(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    plain = {"grids": GRIDS, "fps": FPS, "file_format": "safetensors"}
    claim_folder(tmp_path, Settings.of(load_encoder("thumbnail2"), **plain))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/v.safetensors").touch()
    with pytest.raises(ConfigError, match=rf"made differently: {match}\. Choose another --out"):
        claim_folder(tmp_path, Settings.of(load_encoder("thumbnail2"), **(plain | change)))
    with pytest.raises(ConfigError, match="encoder thumbnail2, now thumbnail3; wid"):
        claim_folder(tmp_path, Settings.of(load_encoder("thumbnail3"), **plain))


def test_folder_without_features_is_claimed_anew(tmp_path: Path) -> None:
    plain = {"grids": GRIDS, "file_format": "safetensors"}
    encoder = load_encoder("thumbnail2")
    claim_folder(tmp_path, Settings.of(encoder, fps=2.0, **plain))
    claim_folder(tmp_path, Settings.of(encoder, fps=1.0, **plain))
    assert json.loads((tmp_path / MANIFEST).read_text())["fps"] == 1.0


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_other_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    settings = Settings.of(load_encoder("thumbnail2"), grids=GRIDS, fps=FPS, file_format="arrow")
    with pytest.raises(ConfigError, match=r"manifest\.json: is no manifest of features .*--out"):
        claim_folder(tmp_path, settings)


def test_features_of_other_settings_are_not_done(videos: Path, tmp_path: Path) -> None:
    encoder = load_encoder("thumbnail2")
    run(videos, tmp_path, encoder)
    job = Job(videos / "v1.mp4", tmp_path / "v1.safetensors")
    assert is_done(job, Settings.of(encoder, grids=GRIDS, fps=FPS, file_format="safetensors"))
    assert not is_done(job, Settings.of(encoder, grids=GRIDS, fps=3, file_format="safetensors"))
    gone = Job(videos / "gone.mp4", job.target)
    assert not is_done(gone, Settings.of(encoder, grids=GRIDS, fps=FPS, file_format="safetensors"))
