"""Features are those of the frames, whatever the batch, the workers and the shards."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.feature_content import read_content, read_notes
from proassist_lit.encoding.jobs import Shard
from proassist_lit.encoding.manifest import MANIFEST
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.encoders import load_encoder
from proassist_lit.vision.video import decode_video
from tests.encoding.runs import FPS, GRIDS, Nobody, OddEncoder, contents, run
from tests.vision.clips import make_clip


@pytest.mark.parametrize("file_format", ["safetensors", "arrow"])
def test_features_are_those_of_the_frames(
    file_format: str, videos: Path, network: Path, tmp_path: Path
) -> None:
    encoder, watcher = load_encoder(str(network)), Nobody()
    outcome = run(videos, tmp_path, encoder, file_format=file_format, watcher=watcher)

    assert (outcome.num_videos, outcome.num_before, outcome.failures) == (5, 0, {})
    assert outcome.num_frames == watcher.num_frames == sum(n for _, n, _ in watcher.videos)
    for name in ("v0", "v1", "deep/v2", "v3", "v4"):
        reader = open_features(tmp_path / f"{name}.safetensors", GRIDS)
        frames = list(decode_video(videos / f"{name}.mp4", FPS))
        assert reader.shape() == (len(frames), 5, encoder.width)
        read = reader.read(0, len(frames)).numpy()
        for i, frame in enumerate(frames):  # one by one
            single = encoder.encode(frame[None], GRIDS)
            right = np.concatenate([single[grid][0] for grid in GRIDS])
            np.testing.assert_allclose(read[i], right.astype(np.float32), rtol=1e-3, atol=1e-3)


def test_notes_say_how_it_was_made(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, load_encoder("thumbnail2"))
    notes = read_notes(tmp_path / "v1.safetensors")
    made = json.loads(notes["made"])
    assert (notes["fps"], notes["encoder"], notes["rendered"]) == ("4.0", "thumbnail2", "false")
    assert made["video"] == "v1.mp4"
    assert made["num_frames"] == len(read_content(tmp_path / "v1.safetensors")[0]["cls"]) == 4
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest.items() <= made.items()
    assert manifest["grids"] == ["cls", "2x2"]


@pytest.mark.parametrize("options", [
    {"batch": 1}, {"batch": 17, "num_workers": 3}, {"batch": 1000, "num_workers": 8},
])  # fmt: skip
def test_bytes_do_not_depend_on_batch_or_workers(
    options: dict[str, int], videos: Path, network: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(str(network))
    run(videos, tmp_path / "one", encoder)
    run(videos, tmp_path / "two", encoder, **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("file_format", ["safetensors", "arrow"])
def test_bytes_do_not_depend_on_shards(
    file_format: str, videos: Path, network: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(str(network))
    run(videos, tmp_path / "one", encoder, file_format=file_format)
    for i in (2, 0, 1):
        shard = Shard(i, 3)
        run(videos, tmp_path / "two", encoder, file_format=file_format, shard=shard)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_second_run_does_nothing(videos: Path, tmp_path: Path) -> None:
    encoder = load_encoder("thumbnail2")
    run(videos, tmp_path, encoder)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    watcher = Nobody()
    outcome = run(videos, tmp_path, encoder, watcher=watcher)
    assert (outcome.num_videos, outcome.num_before, watcher.videos) == (0, 5, [])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == before


def test_changed_video_and_damaged_features_are_made_anew(videos: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "videos", tmp_path / "out"
    for name in ("v1.mp4", "v3.mp4", "v4.mp4"):
        own.mkdir(exist_ok=True)
        (own / name).write_bytes((videos / name).read_bytes())
    encoder = load_encoder("thumbnail2")
    run(own, out, encoder)
    right = contents(out)
    (own / "v3.mp4").write_bytes((videos / "v1.mp4").read_bytes())
    damaged = out / "v4.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:50])

    watcher = Nobody()
    run(own, out, encoder, watcher=watcher)

    assert sorted(name for name, _, _ in watcher.videos) == ["v3.mp4", "v4.mp4"]
    after = contents(out)
    assert after["v4.safetensors"] == right["v4.safetensors"]
    assert after["v3.safetensors"] != right["v3.safetensors"]


def test_order_of_frames_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        make_clip(tmp_path / f"videos/{i}.mp4", range(0, 10000, 250))
    run(tmp_path / "videos", tmp_path / "out", OddEncoder(3.0), num_workers=3, batch=16)
    for i in range(3):
        grids, _ = read_content(tmp_path / f"out/{i}.safetensors")
        assert grids["cls"].flatten().tolist() == list(range(40))


@pytest.mark.road
def test_memory_is_bounded(tmp_path: Path) -> None:
    # two units waiting, at most two taken by the encoder, one in the hands of each worker
    too_many = 2 + 2 + 2 + 1

    class Slow(OddEncoder):
        """Does not begin before its frames are too many, or would have been."""

        def __init__(self) -> None:
            super().__init__(3.0)
            self.lock, self.num_prepared, self.overflow = threading.Lock(), 0, threading.Event()

        def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
            with self.lock:
                self.num_prepared += 1
                if self.num_prepared == too_many:
                    self.overflow.set()
            return super().prepare(frames)

        def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
            if self.num_prepared < too_many:
                assert not self.overflow.wait(0.5)
                self.num_prepared = too_many
            return super().encode_prepared(prepared, grids)

    for i in range(3):
        make_clip(tmp_path / f"videos/{i}.mp4", range(0, 60000, 250))
    encoder = Slow()
    run(tmp_path / "videos", tmp_path / "out", encoder, num_workers=2, batch=2 * UNIT)
    assert not encoder.overflow.is_set()
