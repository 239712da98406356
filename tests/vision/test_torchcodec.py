"""TorchCodec is asked for the frames that PyAV gives; here another module stands in for it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.vision.decoders import choose_decoder
from proassist_lit.vision.torchcodec_video import decode_by_torchcodec
from proassist_lit.vision.video import decode_video
from tests.vision.clips import make_clip, number_of
from tests.vision.fake_torchcodec import FakeDecoder, install, uninstall

CPU = torch.device("cpu")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeDecoder]:
    return install(monkeypatch)


VARIABLE = [0, 40, 90, 700, 720, 1500, 1510, 1520, 2900, 3000]


@pytest.mark.road
@pytest.mark.parametrize("fps", [2.0, 3.0, 29.97])
@pytest.mark.parametrize(
    ("name", "ticks"),
    [
        ("even.mp4", [33 * i for i in range(80)]),  # some reordered, by x264
        ("variable.mkv", VARIABLE),
        ("late.mp4", [5000 + 50 * i for i in range(60)]),  # begins at 5 s
        ("sound.mp4", [33 * i for i in range(80)]),  # on a track behind that of the sound
        ("gap.mov", [0, 100, 4000]),
    ],
)
def test_frames_are_those_of_pyav(
    name: str, ticks: list[int], fps: float, fake: type[FakeDecoder], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / name, ticks, sound_s=1.0 if name == "sound.mp4" else 0.0)
    expected = [number_of(frame) for frame in decode_video(clip, fps)]
    found = [number_of(frame) for frame in decode_by_torchcodec(clip, fps)]
    assert found == expected
    assert len(set(found)) > 2
    asked = fake.made[0]["asked"]
    assert isinstance(asked, list)
    assert len(asked) == len(set(asked))  # no picture twice, and none that is not shown


def test_a_part_is_a_part_of_the_whole(fake: type[FakeDecoder], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [33 * i for i in range(120)])
    whole = [number_of(frame) for frame in decode_by_torchcodec(clip, 4.0)]
    part = [number_of(f) for f in decode_by_torchcodec(clip, 4.0, start_s=0.9, end_s=2.5)]
    assert part == whole[4:10]
    assert list(decode_by_torchcodec(clip, 4.0, start_s=2, end_s=2)) == []


def test_the_decoder_works_where_it_is_told(fake: type[FakeDecoder], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [0, 500, 1000])
    assert choose_decoder("pyav", CPU) is decode_video
    decode = choose_decoder("torchcodec", torch.device("cuda", 1))
    assert len(list(decode(clip, 2.0, threads=3))) == len(list(decode_video(clip, 2.0)))
    assert fake.made[0]["device"] == "cuda:1"
    assert fake.made[0]["num_ffmpeg_threads"] == 3


@pytest.mark.parametrize(("fails_from", "said"), [(1000, r"frames to \d"), (0, "no frame")])
def test_a_damaged_video_ends_as_with_pyav(
    fails_from: int, said: str, fake: type[FakeDecoder], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fake, "fails_from", fails_from)
    clip = make_clip(tmp_path / "clip.mkv", [33 * i for i in range(120)])
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(VideoError, match=rf"clip\.mkv: is damaged: .*{said}.* could be decoded"):
        list(decode_by_torchcodec(clip, 2.0))


def test_pictures_of_other_times_are_refused(
    fake: type[FakeDecoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [0, 500, 1000])
    monkeypatch.setattr(fake, "late_s", 0.04)
    with pytest.raises(VideoError, match=r"the picture at 0\.040 s for the one at 0\.000 s; use"):
        list(decode_by_torchcodec(clip, 2.0))


def test_what_torchcodec_cannot_decode_is_told(
    fake: type[FakeDecoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [0, 500, 1000])
    monkeypatch.setattr(fake, "fails_from", 0)
    with pytest.raises(VideoError, match=r"cannot decode it beyond 0 frames \(no NVDEC for this"):
        list(decode_by_torchcodec(clip, 2.0))
    with pytest.raises(VideoError, match=r"none\.mp4: cannot be opened"):
        list(decode_by_torchcodec(tmp_path / "none.mp4", 2.0))
    with pytest.raises(ConfigError, match="fps must be above 0"):
        list(decode_by_torchcodec(clip, 0.0))


@pytest.mark.parametrize(
    "error",
    [ImportError("No module named 'torchcodec'"), RuntimeError("Could not load it.\nmore")],
)
def test_torchcodec_that_is_missing_says_what_to_install(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(monkeypatch, error)
    first = str(error).partition("\n")[0].rstrip(".")
    with pytest.raises(ConfigError, match=rf"--decoder torchcodec: .*\({first}.*pip install torch"):
        choose_decoder("torchcodec", CPU)


def test_times_are_read_without_decoding(tmp_path: Path) -> None:
    from proassist_lit.vision.video_file import VideoFile

    clip = make_clip(tmp_path / "clip.mkv", VARIABLE)
    with VideoFile(clip) as video:
        times = [time_s for time_s, _ in video.times()]
        assert video.fault is None
    assert times == [Fraction(tick, 1000) for tick in VARIABLE]


def test_frames_are_arrays_of_bytes(fake: type[FakeDecoder], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [0, 500, 1000], size=(64, 48))
    for frame in decode_by_torchcodec(clip, 2.0):
        assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
