from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.feature_content import read_content, read_notes
from proassist_lit.encoding.encode import Outcome, encode_videos
from proassist_lit.encoding.jobs import Job, Shard, find_jobs
from proassist_lit.encoding.manifest import MANIFEST, Settings, claim_folder, is_done
from proassist_lit.errors import ConfigError, ProAssistError
from proassist_lit.vision.encoder import UNIT, FrameEncoder
from proassist_lit.vision.encoders import load_encoder
from proassist_lit.vision.video import decode_video
from tests.vision.clips import make_clip, make_sound, noise, number_of
from tests.vision.tiny_networks import save

GRIDS = ("cls", "2x2")
FPS = 4.0


class Nobody:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.num_frames = 0
        self.videos: list[tuple[str, int, bool]] = []

    def frames(self, job: Job, num_frames: int) -> None:
        self.num_frames += num_frames

    def video(self, job: Job, num_frames: int, error: ProAssistError | None) -> None:
        self.videos.append((job.video.name, num_frames, error is not None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short videos of different lengths, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("videos")
    for i, length in enumerate((90, 20, 55, 8, 70)):
        name = f"deep/v{i}.mp4" if i == 2 else f"v{i}.mp4"
        make_clip(folder / name, [40 * t for t in range(length)], pictures=noise(length))
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("siglip", tmp_path_factory.mktemp("network"))


def run(
    videos: Path, out: Path, encoder: FrameEncoder, *, file_format: str = "safetensors",
    shard: Shard | None = None, watcher: Nobody | None = None, **options: Any,
) -> Outcome:  # fmt: skip
    settings = Settings.of(encoder, grids=GRIDS, fps=FPS, file_format=file_format)
    jobs = (shard or Shard()).of(find_jobs([videos], out, f".{file_format}"))
    claim_folder(out, settings)
    return encode_videos(jobs, encoder, settings, watcher or Nobody(), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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


class OddEncoder(FrameEncoder):
    """Gives what it is told to give; fails at pictures of some size."""

    name, revision, width, preprocessing = "odd", "1", 1, "none"

    def __init__(self, value: float) -> None:
        self.value = value

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        if frames.shape[1] == 16:
            raise ZeroDivisionError("too small")
        return torch.tensor([float(number_of(frame)) for frame in frames])

    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        assert len(prepared) == UNIT
        values = torch.where(prepared == 3, self.value, prepared)
        return {grid: values[:, None, None].half() for grid in grids}


def test_numbers_too_large_are_refused(tmp_path: Path) -> None:
    make_clip(tmp_path / "videos/v.mp4", range(0, 2500, 250))
    outcome = run(tmp_path / "videos", tmp_path / "out", OddEncoder(1e6))
    (error,) = outcome.failures.values()
    assert "numbers for frame 3 (grid cls) that float16 cannot hold; try --dtype" in str(error)
    assert not (tmp_path / "out/v.safetensors").exists()


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


def test_what_a_killed_process_left_is_removed(videos: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [tmp_path / f".v1.safetensors.{pid}.part" for pid in (gone.pid, os.getppid())]
    for path in left:
        path.touch()
    run(videos, tmp_path, load_encoder("thumbnail2"))
    assert [path.exists() for path in left] == [False, True]  # the other may be writing still


COMMAND = "import sys; from proassist_lit.commands.main import main; sys.exit(main(sys.argv[1:]))"


def kill_and_go_on(videos: Path, encoder: str, tmp_path: Path, moments: Sequence[int]) -> None:
    """Kill it after so many lines (one a finished video), go on, and compare."""
    run(videos, tmp_path / "whole", load_encoder(encoder))
    right = contents(tmp_path / "whole")
    for number, moment in enumerate(moments):
        out = tmp_path / f"out{number}"
        arguments = ["encode", str(videos), "--encoder", encoder, "--out", str(out), "--fps",
                     str(FPS), "--batch", "8", "--workers", "2"]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stderr is not None
        with process, process.stderr as lines:
            for _ in range(moment):
                lines.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert len(contents(out)) < len(right)
        run(videos, out, load_encoder(encoder))
        assert contents(out) == right


@pytest.fixture(scope="module")
def many_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for i in range(16):
        make_clip(folder / f"v{i:02}.mp4", range(0, 4000 + 400 * i, 40))
    return folder


@pytest.mark.road
def test_killed_run_goes_on_to_the_same_bytes(many_videos: Path, tmp_path: Path) -> None:
    kill_and_go_on(many_videos, "thumbnail8", tmp_path, [1, 5])


@pytest.mark.slow
def test_many_killed_runs_go_on_to_the_same_bytes(
    many_videos: Path, network: Path, tmp_path: Path
) -> None:
    moments = np.random.default_rng(0).integers(0, 15, 20).tolist()
    kill_and_go_on(many_videos, str(network), tmp_path, moments)
