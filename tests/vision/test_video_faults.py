from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from proassist_lit.errors import VideoError
from proassist_lit.vision.video import decode_video, read_info
from proassist_lit.vision.video_file import VideoFile
from tests.vision.clips import make_clip, make_sound, noise

TICKS = [40 * i for i in range(75)]  # 3 s


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def blot(path: Path, share: float, length: int = 2000) -> Path:
    """Overwrite some of its middle with zeros."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path


def decoded(path: Path, **window: float) -> tuple[list[NDArray[np.uint8]], str]:
    """The frames, and the error after them."""
    frames: list[NDArray[np.uint8]] = []
    with pytest.raises(VideoError) as caught:
        frames.extend(decode_video(path, 10, **window))  # those before the error, too
    return frames, str(caught.value)


def clip(path: Path) -> Path:
    return make_clip(path, TICKS, pictures=noise(len(TICKS)), faststart=path.suffix == ".mp4")


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize("share", [0.5, 0.77])
def test_cut_video_gives_what_is_there_then_says_so(
    name: str, share: float, tmp_path: Path
) -> None:
    whole = list(decode_video(clip(tmp_path / name), 10))
    frames, error = decoded(cut(tmp_path / name, share))

    assert 0.6 * share * len(whole) < len(frames) < 1.2 * share * len(whole)
    sound = frames[: int(0.8 * len(frames))]
    np.testing.assert_array_equal(np.stack(sound), np.stack(whole[: len(sound)]))
    assert error.startswith(f"{tmp_path / name}: is damaged: ")
    assert f"frames to {(len(frames) - 1) / 10:.2f} s could be decoded" in error
    assert "Copy or record it again" in error


def test_cut_between_two_packets_is_noticed(tmp_path: Path) -> None:
    path = clip(tmp_path / "v.mp4")
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        end = packets[40].pos
    path.write_bytes(path.read_bytes()[:end])
    _, error = decoded(path)
    assert "before its header says" in error or "cannot be read beyond" in error
    # in a window that needs what is missing, too, and not in one that does not
    _, error = decoded(path, start_s=1.0)
    assert "is damaged" in error
    assert len(list(decode_video(path, 10, start_s=0.2, end_s=1.0))) == 8


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_damage_in_the_middle_is_noticed_and_passed(name: str, tmp_path: Path) -> None:
    num_frames = len(list(decode_video(clip(tmp_path / name), 10)))
    frames, error = decoded(blot(tmp_path / name, 0.5))
    assert len(frames) >= num_frames - 2
    assert "is damaged" in error


def test_damage_outside_a_window_does_not_matter(tmp_path: Path) -> None:
    path = blot(clip(tmp_path / "v.mp4"), 0.5, 500)
    assert len(list(decode_video(path, 10, start_s=2.5))) == 5
    assert len(list(decode_video(path, 10, end_s=0.5))) == 5


def test_sound_of_matroska_may_be_longer(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        container.mux(pictures.encode(av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24")))
        container.mux(pictures.encode(None))
        for i in range(200):  # 4.6 s
            frame = av.AudioFrame.from_ndarray(
                np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
            )
            frame.rate, frame.pts = 44100, 1024 * i
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert len(list(decode_video(path, 25))) == 1


def empty(path: Path) -> Path:
    path.touch()
    return path


def text(path: Path) -> Path:
    path.write_text("no video\n" * 100)
    return path


def cut_index(path: Path) -> Path:
    return cut(make_clip(path, TICKS, pictures=noise(len(TICKS))), 0.5)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def no_picture(path: Path) -> Path:
    """A header, and not one packet that can be decoded."""
    make_clip(path, [0, 40], pictures=noise(2), faststart=True)
    with av.open(str(path)) as container:
        start = min(p.pos for p in container.demux(video=0) if p.size)
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(len(data) - start))
    return path


def unknown_code(path: Path) -> Path:
    """Pictures under a name of a code that nobody has."""
    make_clip(path, TICKS, pictures=noise(len(TICKS)))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"mp4v", b"zzzz"))
    return path


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (unknown_code, r"v\.mp4: its pictures are coded in a way that PyAV does not know; convert"),
        (empty, r"v\.mp4: is empty \(0 bytes\); copy or record it again"),
        (text, r"v\.mp4: is no video, or was cut off before its index.*; copy or record it again"),
        (cut_index, r"v\.mp4: is no video, or was cut off before its index"),
        (make_sound, r"v\.mp4: holds no video, only audio; name the file with the pictures"),
        (folder, r"v\.mp4: cannot be opened \(Is a directory\); name a video file"),
        (lambda path: path, r"v\.mp4: cannot be opened \(No such file or directory\); name a"),
        (no_picture, r"v\.mp4: not one picture could be decoded \(.+\); copy or record it again"),
    ],
)
def test_what_is_no_video_is_refused_by_name(
    make: Callable[[Path], Path], match: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "v.mp4")
    with pytest.raises(VideoError, match=match):
        next(decode_video(path, 2))
    with pytest.raises(VideoError, match=match):
        read_info(path)


def test_cover_of_a_record_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "v.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(
            np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
        )
        frame.rate, frame.pts = 44100, 0
        container.mux(cover.encode(av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24")))
        container.mux(cover.encode(None))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video  # it would be taken for one
    with pytest.raises(VideoError, match="holds no video"):
        VideoFile(path)


def test_times_that_go_back_are_damage(tmp_path: Path) -> None:
    first = make_clip(tmp_path / "a.ts", [5000 + t for t in TICKS])
    second = make_clip(tmp_path / "b.ts", TICKS)
    (tmp_path / "v.ts").write_bytes(first.read_bytes() + second.read_bytes())
    frames, error = decoded(tmp_path / "v.ts")
    assert len(frames) == 30
    assert "its times go back at 2.96 s" in error
