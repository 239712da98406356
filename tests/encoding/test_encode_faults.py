"""A fault costs its video, and nothing else."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from proassist_lit.data.feature_content import read_content, read_notes
from proassist_lit.encoding.manifest import MANIFEST
from proassist_lit.vision.encoders import load_encoder
from tests.encoding.runs import OddEncoder, contents, run
from tests.vision.clips import make_clip, make_sound, noise


@pytest.fixture
def some_bad(videos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bad"
    folder.mkdir()
    make_sound(folder / "a_sound.mp4")
    (folder / "b_good.mp4").write_bytes((videos / "v1.mp4").read_bytes())
    cut = make_clip(folder / "c_cut.mp4", range(0, 3000, 40), pictures=noise(75), faststart=True)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "d_empty.mp4").touch()
    (folder / "e_good.mp4").write_bytes((videos / "v3.mp4").read_bytes())
    return folder


def test_bad_videos_do_not_stop_the_others(some_bad: Path, tmp_path: Path) -> None:
    outcome = run(some_bad, tmp_path / "out", load_encoder("thumbnail2"), num_workers=2)
    assert outcome.num_videos == 2
    failures = {job.video.name: str(error) for job, error in outcome.failures.items()}
    assert sorted(failures) == ["a_sound.mp4", "c_cut.mp4", "d_empty.mp4"]
    assert "holds no video" in failures["a_sound.mp4"]
    assert "is damaged" in failures["c_cut.mp4"]
    assert sorted(contents(tmp_path / "out")) == [
        "b_good.safetensors", "e_good.safetensors", MANIFEST,
    ]  # fmt: skip


def test_damaged_video_is_kept_if_asked(some_bad: Path, tmp_path: Path) -> None:
    encoder = load_encoder("thumbnail2")
    outcome = run(some_bad, tmp_path / "out", encoder, keep_damaged=True)
    assert outcome.num_videos == 3
    assert len(outcome.failures) == 2
    grids, notes = read_content(tmp_path / "out/c_cut.safetensors")
    assert 3 <= len(grids["cls"]) <= 8
    assert json.loads(notes["made"])["damaged"] is True
    assert json.loads(read_notes(tmp_path / "out/b_good.safetensors")["made"])["damaged"] is False


def test_numbers_too_large_are_refused(tmp_path: Path) -> None:
    make_clip(tmp_path / "videos/v.mp4", range(0, 2500, 250))
    outcome = run(tmp_path / "videos", tmp_path / "out", OddEncoder(1e6))
    (error,) = outcome.failures.values()
    assert "numbers for frame 3 (grid cls) that float16 cannot hold; try --dtype" in str(error)
    assert not (tmp_path / "out/v.safetensors").exists()


def test_unforeseen_fault_is_that_of_its_video(tmp_path: Path) -> None:
    make_clip(tmp_path / "videos/a.mp4", [0], size=(32, 16))
    make_clip(tmp_path / "videos/b.mp4", [0, 250])
    outcome = run(tmp_path / "videos", tmp_path / "out", OddEncoder(3.0))
    assert outcome.num_videos == 1
    (error,) = outcome.failures.values()
    assert "a.mp4: cannot be decoded (ZeroDivisionError: too small); convert it" in str(error)


def test_failing_encoder_ends_the_workers(videos: Path, tmp_path: Path) -> None:
    class Broken(OddEncoder):
        def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
            raise MemoryError("no room")

    before = threading.active_count()
    with pytest.raises(MemoryError):
        run(videos, tmp_path, Broken(0.0), num_workers=3, batch=1)
    assert threading.active_count() == before


def test_full_disk_is_a_failure_of_the_video(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("in the way")
    outcome = run(videos, tmp_path, load_encoder("thumbnail2"))
    (error,) = outcome.failures.values()
    assert "deep/v2.safetensors: cannot be written (" in str(error)
    assert outcome.num_videos == 4


@pytest.mark.parametrize("file_format", ["safetensors", "arrow"])
def test_file_that_grows_too_large_is_a_failure_of_the_video(
    file_format: str, tmp_path: Path
) -> None:
    for name, length in (("long", 90), ("short", 5)):
        make_clip(tmp_path / f"videos/{name}.mp4", [40 * i for i in range(length)])
    encoder = load_encoder("thumbnail16")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # as a full disk, by videos
    try:
        outcome = run(tmp_path / "videos", tmp_path / "out", encoder, file_format=file_format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    ((job, error),) = outcome.failures.items()
    assert (job.video.name, outcome.num_videos) == ("long.mp4", 1)
    assert f"long.{file_format}: cannot be written (" in str(error)
    assert not job.target.exists()
