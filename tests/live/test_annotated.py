from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from proassist_lit.errors import ConfigError, VideoError
from proassist_lit.live import annotated
from proassist_lit.live.annotated import write_annotated
from proassist_lit.live.drawing import Drawer, Layout, _in_sight, load_font
from proassist_lit.live.subtitles import Line
from proassist_lit.types import StepState
from tests.vision.clips import make_clip, number_of

from .test_subtitles import frame

pytestmark = pytest.mark.road

STEPS = [(f"S{i}", f"step number {i}") for i in range(1, 31)]
N, P, C = StepState.NOT_STARTED, StepState.IN_PROGRESS, StepState.COMPLETED


@pytest.mark.parametrize(
    ("size", "checklist", "expected"),
    [
        ((64, 64), True, (640, 640, 268)),
        ((853, 481), False, (852, 480, 0)),
        ((3840, 2160), True, (1280, 720, 538)),
        ((1000, 3001), False, (854, 2560, 0)),
    ],
)
def test_sizes_are_even_and_readable(
    size: tuple[int, int], checklist: bool, expected: tuple[int, int, int]
) -> None:
    layout = Layout.of(*size, checklist=checklist)
    assert (layout.width, layout.height, layout.panel) == expected


def test_steps_around_the_present_one_are_in_sight() -> None:
    assert _in_sight([N] * 5, 9) == range(5)
    assert _in_sight([N] * 30, 9) == range(9)
    assert _in_sight([C] * 12 + [P] + [N] * 17, 9) == range(9, 18)
    assert _in_sight([C] * 30, 9) == range(21, 30)


def test_long_words_stay_in_the_picture() -> None:
    drawer = Drawer(64, 48, STEPS)
    picture = np.full((48, 64, 3), 120, np.uint8)
    silent = drawer.draw(picture, (), {})
    words = (Line("User", "word " * 300), Line("Assistant", "x" * 900))
    drawn = drawer.draw(picture, words, {"S1": C, "S2": P})
    assert drawn.shape == silent.shape == (480, 908, 3)
    assert (silent[:, :640] == 120).all()
    assert (drawn[:, :640] != 120).any(axis=2).mean() > 0.9  # rows that do not fit are cut
    assert (silent[:, 640:] != drawn[:, 640:]).any()


def test_a_font_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_text("no font")
    with pytest.raises(ConfigError, match=r"--font .*a\.ttf: cannot be read as a font"):
        load_font(tmp_path / "a.ttf")


def pictures(path: Path) -> list[tuple[float, int]]:
    """Time of every picture, and the number that its upper part bears."""
    with av.open(str(path)) as container:
        return [
            (round(float(shown.time or 0), 3), number_of(shown.to_ndarray(format="rgb24")[:200]))
            for shown in container.decode(container.streams.video[0])
        ]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_come_as_in_the_video_and_words_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.setattr(annotated, "_CODECS", ("nonsense", codec))
    clip = make_clip(tmp_path / "clip.mp4", [100 * i for i in range(30)])  # 10 a second, for 3 s
    frames = [frame(i, "Look." if i == 1 else "", fps=4.0) for i in range(8)]
    write_annotated(tmp_path / "out.mp4", clip, frames, [], fps=4.0)
    found = pictures(tmp_path / "out.mp4")
    by_time = dict(found[:-1])  # on a raster of 30 a second
    for number in range(20):
        assert by_time[round(number / 10, 3)] == number
    assert round(found[-1][0], 1) == 2.0  # the last picture lasts to the end of what was watched
    extra = sorted(set(by_time) - {round(number / 10, 3) for number in range(20)})
    assert len(extra) == 2  # where words come and go between two pictures
    assert extra[0] == pytest.approx(0.25, abs=0.05)
    assert extra[1] == pytest.approx(1.75, abs=0.05)


def test_the_first_picture_is_that_of_the_first_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [100 * i for i in range(30)])
    write_annotated(tmp_path / "out.mp4", clip, [frame(5, fps=3.0)], [], fps=3.0)  # at 1.67 s
    assert pictures(tmp_path / "out.mp4")[0] == (0.0, 16)


@pytest.mark.parametrize("sound_s", [0.0, 1.0, 9.0], ids=["silent", "shorter", "longer"])
def test_sound_changes_nothing_and_is_left_out(tmp_path: Path, sound_s: float) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [100 * i for i in range(30)], sound_s=sound_s)
    with av.open(str(clip)) as container:
        kinds = [track.type for track in container.streams]
        assert kinds == (["audio", "video"] if sound_s else ["video"])
    frames = [frame(i, fps=4.0) for i in range(12)]
    write_annotated(tmp_path / "out.mp4", clip, frames, [], fps=4.0)
    *shown, _ = pictures(tmp_path / "out.mp4")
    assert shown == [(round(number / 10, 3), number) for number in range(30)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        (track,) = container.streams
        assert track.type == "video"
        assert track.duration is not None
        assert track.time_base is not None
        assert float(track.duration * track.time_base) == pytest.approx(3.0, abs=0.05)


def test_without_a_codec_or_a_place_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [0, 500, 1000])
    with pytest.raises(VideoError, match=r"clip\.mp4.out\.mp4: cannot be written"):
        write_annotated(clip / "out.mp4", clip, [frame(0)], [], fps=2.0)
    monkeypatch.setattr(annotated, "_CODECS", ("nonsense",))
    with pytest.raises(ConfigError, match=r"PyAV was built without a codec .*\(nonsense\)"):
        write_annotated(tmp_path / "out.mp4", clip, [frame(0)], [], fps=2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
