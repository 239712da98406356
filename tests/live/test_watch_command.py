"""``proassist-lit watch`` as from a shell, and the files it leaves."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import av
import numpy as np
import pytest

from proassist_lit.commands.main import main
from proassist_lit.live import watching
from proassist_lit.live.subtitles import make_cues
from proassist_lit.live.watching import Watched
from proassist_lit.types import FrameOutput

from .test_subtitles import read
from .trained import UTTERANCES, TrainedRun, script_words

pytestmark = pytest.mark.road

Captured = pytest.CaptureFixture[str]


def watch(run: TrainedRun, film: Path, *options: str) -> int:
    return main(["watch", str(run.folder), str(film), "--device", "cpu", *options])


@pytest.fixture(scope="module")
def watched(
    run: TrainedRun, film: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Folder of all files of a film that was watched with given words, and what was printed."""
    out, said = tmp_path_factory.mktemp("watched") / "out", io.StringIO()
    asked = ["--say", "5:How many?", "--task", run.conversation.id, "--user", "recorded"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        script_words(patch)
        assert watch(run, film, *asked, "--end", "32", "--out", str(out)) == 0
    return out, said.getvalue()


def test_watch_prints_the_dialogue_and_writes_its_files(
    watched: tuple[Path, str], tmp_path: Path
) -> None:
    out, said = watched
    rows = json.loads((out / "film.json").read_text())
    assert [row["frame_idx"] for row in rows] == list(range(64))
    spoken = [row for row in rows if row["text"]]
    assert len(spoken) > 4
    assert {row["text"] for row in spoken} == set(UTTERANCES)
    for row in spoken:
        minutes, seconds = divmod(row["time_s"], 60)
        line = rf"{int(minutes)}:{seconds:04.1f}  assistant  {re.escape(row['text'])}\n"
        assert re.search(line, said)
    assert re.search(r"0:05\.0  user       How many\?\n", said)
    assert "Task knowledge" not in said  # no user said that
    assert re.search(r"state      S1 .+: in progress\n", said)
    assert re.search(r"● S1 .+: completed\n", said)
    assert f"64 frames watched; {len(spoken)} times spoken; an answer took" in said

    subtitles = read(tmp_path / "copy.srt", (out / "film.srt").read_text(encoding="utf-8"))
    starts = {start for start, _, _ in subtitles}
    assert starts == {row["time_s"] * 1000 for row in spoken} | {5000, 7000}
    assert "WEBVTT" in (out / "film.vtt").read_text()
    assert sorted(path.name for path in out.iterdir()) == [
        "film.json", "film.mp4", "film.srt", "film.vtt",
    ]  # fmt: skip


@pytest.mark.parametrize("realtime", [True, False])
def test_frames_that_come_too_late_are_dropped_in_real_time_only(
    realtime: bool, run: TrainedRun, film: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Captured, tmp_path: Path,
) -> None:  # fmt: skip
    rates: list[float] = []

    class Late:
        """The clock of an assistant that is busy as one frame comes."""

        def __init__(self, fps: float) -> None:
            rates.append(fps)

        def arrives(self, frame_idx: int) -> bool:
            return frame_idx != 3

    monkeypatch.setattr(watching, "RealTime", Late)
    out = tmp_path / "out"
    asked = ["--realtime"] if realtime else []
    files = ["--end", "3", "--out", str(out)]
    assert watch(run, film, "--task", run.conversation.id, *files, *asked) == 0
    rows = json.loads((out / "film.json").read_text())
    assert [row["frame_idx"] for row in rows] == [0, 1, 2, *([] if realtime else [3]), 4, 5]
    assert rates == ([2.0] if realtime else [])
    assert ("1 frames dropped" in capsys.readouterr().out) == realtime


def test_the_video_shows_what_was_said_and_done_at_its_time(
    run: TrainedRun, watched: tuple[Path, str]
) -> None:
    out, _ = watched
    rows = json.loads((out / "film.json").read_text())
    with av.open(str(out / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        shown = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(32.0, abs=0.1)

    def picture(time_s: float) -> np.ndarray:
        return next(p for t, p in reversed(shown) if t is not None and t <= time_s + 1e-3)

    side = 640
    originals = run.pictures()
    for index in (0, 20, 60):
        seen = picture(index / 2)[:500:10, :side:10].astype(int)  # above the words
        error = np.abs(seen[1:-1] - originals[index, 1:49].astype(int)).mean()
        others = np.abs(seen[1:-1] - originals[index - 9, 1:49].astype(int)).mean()
        assert error < 14 < others + 14  # lossy, but this picture and no other
        assert error < others
    first = next(row for row in rows if row["text"])
    before, after = picture(first["time_s"] - 0.5), picture(first["time_s"])
    words = np.s_[600:, 10:160]
    assert (after[words].max(axis=2) > 215).sum() > (before[words].max(axis=2) > 215).sum() + 50
    ticked = next(row for row in rows if row["state"]["S1"] == "completed")
    inside = np.s_[13:22, 650:658]  # of the box of S1
    tick = [
        (np.ptp(picture(t)[inside].astype(int), axis=2) > 40).sum() for t in (0.0, ticked["time_s"])
    ]
    assert tick[0] == 0
    assert tick[1] > 5


def test_a_video_without_a_task_is_watched_without_steps(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert watch(run, film, "--end", "2", "--set", "stream.theta_speak=1") == 0
    said = capsys.readouterr()
    assert "no --task, and no recording is called like the video" in said.err
    assert "task: no task, 0 steps" in said.out
    named = tmp_path / f"{run.conversation.video_uid}.mkv"
    named.symlink_to(film)
    assert watch(run, named, "--end", "2", "--say", "9:Hello") == 0
    said = capsys.readouterr()
    assert said.err == "not heard, the video was over: Hello\n"
    assert f"task: {run.conversation.id}, 6 steps" in said.out
    assert "4 frames watched" in said.out


def test_an_interrupt_keeps_what_was_answered(
    run: TrainedRun, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from proassist_lit.commands.watch import _Printer

    shown = _Printer.frame

    def interrupt(self: _Printer, frame: FrameOutput) -> None:
        shown(self, frame)
        if frame.frame_idx == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Printer, "frame", interrupt)
    assert watch(run, film, "--out", str(tmp_path)) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert len(json.loads((tmp_path / "film.json").read_text())) == 13
    assert (tmp_path / "film.mp4").exists()


def test_an_interrupted_mp4_leaves_nothing_behind(
    run: TrainedRun, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proassist_lit.live.drawing import Drawer

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Drawer, "draw", interrupt)
    assert watch(run, film, "--out", str(tmp_path), "--end", "3") == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.json", "film.srt", "film.vtt"]


def test_a_damaged_video_is_answered_as_far_as_it_goes(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 8])
    assert watch(run, cut, "--out", str(tmp_path), "--json", "--mp4") == 2
    said = capsys.readouterr()
    assert re.search(r"error: .*cut\.mkv: is damaged: .*could be decoded", said.err)
    rows = json.loads((tmp_path / "cut.json").read_text())
    assert f"{len(rows)} frames watched" in said.out
    assert len(rows) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--say", "now:Hello"], r"--say 'now:Hello': give the seconds"),
        (["--start", "3", "--end", "2"], r"--start 3 --end 2\.0: give seconds"),
        (["--start", "900"], r"--start 900: film\.mkv is \d+\.\d s long; begin earlier\."),
        (["--task", "nowhere"], r"task 'nowhere': is no JSON file and no recording"),
        (["--encoder", "thumbnail8"], r"thumbnail8: its features are 192 wide"),
        (["--encoder", "eyes"], r"encoder 'eyes': known are thumbnail2"),
        (["--set", "stream.theta=1"], r"no key 'theta'"),
        (["--set", "stream.context=reference"],
         r"stream\.context=reference: a live stream has no .*--set stream\.context=own"),
        (["--font", "none.ttf", "--mp4"], r"--font none\.ttf: cannot be read as a font"),
        (["--checkpoint", "best"], r"best\.ckpt: there is no such checkpoint"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_is_watched(
    run: TrainedRun, film: Path, options: list[str], message: str, capsys: Captured
) -> None:
    assert watch(run, film, *options) == 2
    said = capsys.readouterr()
    assert re.search(rf"error: .*{message}", said.err)
    assert "frames watched" not in said.out


def test_files_that_cannot_be_written_are_told(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    mp4 = tmp_path / "film.mp4"
    mp4.symlink_to(film)
    assert watch(run, mp4, "--out", str(tmp_path)) == 2
    assert "film.mp4: would be written over; choose another --out" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for kind in ("--srt", "--mp4"):
        assert watch(run, film, "--end", "1", kind, "--out", str(tmp_path / "file")) == 2
        said = capsys.readouterr()
        assert re.search("--out .*file: cannot be written to", said.err)
        assert said.out == ""  # nothing was watched


def test_the_file_of_the_task_is_not_written_over(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = '{"prompt": "Help.", "steps": ["boil"]}'
    Path("film.json").write_text(task)
    Path("linked.json").symlink_to("film.json")
    for given in ("film.json", "linked.json"):
        for files in (["--json"], ["--out", str(tmp_path)]):
            assert watch(run, film, "--task", given, "--end", "1", *files) == 2
            said = capsys.readouterr()
            assert f"{given}: would be written over; choose another --out" in said.err
            assert said.out == ""  # nothing was watched
    assert Path("film.json").read_text() == task
    assert watch(run, film, "--task", "film.json", "--end", "1", "--srt") == 0
    assert Path("film.srt").exists()


def test_cues_of_a_watch_are_those_of_its_frames() -> None:
    from proassist_lit.live.task import Task

    watched = Watched(Task(name="t", prompt="p"), 2.0)
    assert make_cues(watched.frames) == []
    assert watched.transcript("x").frames == ()
