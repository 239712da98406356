from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.vision.video import Raster, decode_video, frame_time, read_info
from proassist_lit.vision.video_file import VideoFile
from tests.vision.clips import make_clip, number_of, numbered, real_video

STEADY = [40 * i for i in range(60)]
IRREGULAR = list(accumulate(random.Random(0).choices([1, 7, 40, 90, 300, 1200], k=40), initial=0))


def expected(ticks: list[int], fps: Fraction, num_frames: int) -> list[int]:
    """Numbers of the pictures shown at k / fps, from times in ms."""
    times = [Fraction(tick - ticks[0], 1000) for tick in ticks]
    return [max(i for i, t in enumerate(times) if t <= k / fps) for k in range(num_frames)]


CLIPS: dict[str, dict] = {
    "steady.mp4": {"ticks": STEADY},
    "no_b.mp4": {"ticks": STEADY, "options": {"bf": "0"}},
    "irregular.mp4": {"ticks": IRREGULAR},
    "irregular.mkv": {"ticks": IRREGULAR},
    "late.mp4": {"ticks": [1234 + t for t in STEADY]},
    "late.mkv": {"ticks": [1234 + t for t in IRREGULAR]},
    "late.ts": {"ticks": [1234 + t for t in STEADY]},
    "odd.mp4": {"ticks": STEADY, "size": (67, 45), "pix_fmt": "yuv444p"},
    "mpeg4.mp4": {"ticks": STEADY, "codec": "mpeg4", "time_base": Fraction(1, 1000)},
    "lossless.mkv": {"ticks": IRREGULAR, "codec": "ffv1", "size": (35, 27), "pix_fmt": "yuv444p"},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes one of ``CLIPS``, once."""
    folder = tmp_path_factory.mktemp("clips")
    return functools.cache(lambda name: make_clip(folder / name, **CLIPS[name]))


@pytest.mark.road
@pytest.mark.parametrize("fps", [2, 7.5, 24, 29.97, 100])
@pytest.mark.parametrize("name", CLIPS)
def test_frame_is_the_picture_shown_at_its_time(
    name: str, fps: float, clip: Callable[[str], Path]
) -> None:
    ticks = CLIPS[name]["ticks"]

    frames = list(decode_video(clip(name), fps))

    exact = Fraction(str(fps))
    assert [number_of(frame) for frame in frames] == expected(ticks, exact, len(frames))
    # the last frame is before the end of the last picture, and the next one would not be
    last = Fraction(ticks[-1] - ticks[0], 1000)
    assert (len(frames) - 1) / exact >= last - 1 / exact
    assert len(frames) >= math.floor(last * exact) + 1
    assert {frame.shape for frame in frames} == {(*CLIPS[name].get("size", (64, 48))[::-1], 3)}


def test_number_of_frames_counts_the_last_picture(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.mkv", STEADY, options={"bf": "0"})  # 60 pictures of 40 ms
    assert len(list(decode_video(path, 25))) == 60
    assert len(list(decode_video(path, 2))) == 5  # 2.4 s: 0, 0.5, 1, 1.5, 2
    assert len(list(decode_video(path, 1))) == 3


def test_avi_is_timed_by_its_order(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.avi", range(40), time_base=Fraction(1, 20))  # reordered
    assert [number_of(f) for f in decode_video(path, 4)] == list(range(0, 40, 5))
    assert [number_of(f) for f in decode_video(path, 4, start_s=0.6, end_s=1.5)] == [15, 20, 25]


def test_bare_stream_is_timed_by_counting(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.h264", range(40), time_base=Fraction(1, 25))
    rate = read_info(path).rate
    assert [number_of(f) for f in decode_video(path, rate / 5)] == list(range(0, 40, 5))
    assert [number_of(f) for f in decode_video(path, rate / 5, start_s=0.3)][:2] == [10, 15]


@pytest.mark.parametrize(
    "name", ["steady.mp4", "irregular.mp4", "late.mkv", "late.ts", "lossless.mkv"]
)
def test_window_equals_the_slice(name: str, clip: Callable[[str], Path]) -> None:
    path = clip(name)
    fps, draw = 6, random.Random(name)
    whole = list(decode_video(path, fps))
    length = len(whole) / fps
    windows = [(0.0, 0.0), (0.0, 0.1), (length, length + 9), (0.5, None), (-3.0, 1.0)]
    windows += [(a, a + draw.random() * 3) for a in (draw.random() * length for _ in range(12))]

    for start, end in windows:
        window = list(decode_video(path, fps, start_s=start, end_s=end))

        first = max(math.ceil(Fraction(str(start)) * fps), 0)
        stop = len(whole) if end is None else math.ceil(Fraction(str(end)) * fps)
        assert len(window) == len(whole[first:stop]), (start, end)
        for a, b in zip(window, whole[first:stop], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fps", [3, 7, 24, 29.97, 30])
def test_frame_begins_at_its_own_time(fps: float) -> None:
    assert [Raster.of(fps, frame_time(i, fps), None).first for i in range(600)] == list(range(600))


@pytest.mark.parametrize("name", ["steady.mp4", "irregular.mkv"])
def test_window_does_not_decode_what_is_long_before(name: str, clip: Callable[[str], Path]) -> None:
    path = clip(name)
    with VideoFile(path) as video:
        all_pictures = [picture.time_s for picture in video.pictures()]
    late = all_pictures[-3]
    with VideoFile(path) as video:
        assert sum(1 for _ in video.pictures(late)) <= 12 + 3  # a group of pictures, and the end


def test_threads_change_nothing(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.mp4", STEADY)
    one, three = (list(decode_video(path, 10, threads=n)) for n in (1, 3))
    np.testing.assert_array_equal(np.stack(one), np.stack(three))


QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:], QUARTERS[24:, :32], QUARTERS[24:, 32:] = 20, 90, 160, 230


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pictures_are_turned_as_the_file_asks(
    degrees: int, hflip: bool, vflip: bool, tmp_path: Path
) -> None:
    path = make_clip(
        tmp_path / "v.mp4", [0, 40], pictures=[QUARTERS, QUARTERS],
        orientation=(degrees, hflip, vflip),
    )  # fmt: skip
    frame = next(decode_video(path, 2))

    shown = moved(QUARTERS, display_matrix(path))
    if not (hflip or vflip):
        np.testing.assert_array_equal(shown, np.rot90(QUARTERS, degrees // 90))
    np.testing.assert_allclose(frame.astype(int), shown, atol=12)
    info = read_info(path)
    assert (info.height, info.width) == frame.shape[:2]


def display_matrix(path: Path) -> np.ndarray:
    """The 2 x 2 part of the matrix: (x', y') = (x, y) M."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536


def moved(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move every pixel by the matrix, one after the other."""
    height, width, _ = picture.shape
    places = np.array([(x, y) for y in range(height) for x in range(width)]) @ matrix
    places = np.rint(places - places.min(axis=0)).astype(int)
    out = np.zeros((places[:, 1].max() + 1, places[:, 0].max() + 1, 3), np.uint8)
    out[places[:, 1], places[:, 0]] = picture.reshape(-1, 3)
    return out


def test_info_says_what_is_shown(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.mp4", STEADY, orientation=(90, False, False))
    info = read_info(path)
    assert (info.width, info.height, info.codec) == (48, 64, "h264")
    assert info.duration_s == pytest.approx(2.4, abs=0.05)
    assert info.rate == pytest.approx(25, rel=0.05)


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_fps_must_be_a_speed(fps: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fps must be above 0, got .*; 2 is usual"):
        next(decode_video(tmp_path / "v.mp4", fps))


def test_numbers_can_be_read_back() -> None:
    for size in ((64, 48), (67, 45), (35, 27)):
        assert [number_of(numbered(i, size)) for i in range(256)] == list(range(256))


@pytest.mark.road
@pytest.mark.parametrize(
    ("name", "fps", "rate"),
    [
        ("bikes.mp4", 2, Fraction(25)),
        ("bigbuckbunny.mp4", 1, Fraction(25)),
        ("carphone_pristine.mp4", 7, Fraction(30000, 1001)),
        ("carphone_distorted.mp4", 29.97, Fraction(30000, 1001)),
    ],
)
def test_real_video(name: str, fps: float, rate: Fraction) -> None:
    path = real_video(name)
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]

    frames = list(decode_video(path, fps))

    exact = Fraction(str(fps))
    assert len(frames) == math.ceil(len(pictures) / rate * exact)
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(frame, pictures[math.floor(k / exact * rate)])
    middle = list(decode_video(path, fps, start_s=1.5, end_s=3))
    np.testing.assert_array_equal(
        np.stack(middle), np.stack(frames[math.ceil(1.5 * exact) : math.ceil(3 * exact)])
    )
