"""A run that was killed goes on to the same bytes, and removes what was left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from proassist_lit.atomic import part_of
from proassist_lit.encoding.encode import is_running
from proassist_lit.vision.encoders import load_encoder
from tests.encoding.runs import FPS, contents, run
from tests.vision.clips import make_clip


def test_what_a_killed_process_left_is_removed(videos: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    target = tmp_path / "v1.safetensors"
    left = [part_of(target, pid=pid) for pid in (gone.pid, os.getppid())]
    left.append(part_of(target, pid=gone.pid, host="elsewhere"))
    left.append(tmp_path / f".v1.safetensors.{gone.pid}.part")  # as earlier versions called it
    left.append(part_of(target, pid=gone.pid, host="long gone"))
    for path in left:
        path.touch()
    os.utime(left[-1], (time.time() - 2 * 86400,) * 2)
    run(videos, tmp_path, load_encoder("thumbnail2"))
    # the others may be writing still: on another machine nobody can tell
    assert [path.exists() for path in left] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("handle", "error", "waited", "running"),
    [(7, 0, 0x102, True), (7, 0, 0, False), (0, 5, 0, True), (0, 87, 0, False)],
)
def test_on_windows_a_process_is_looked_for_without_a_signal(
    handle: int, error: int, waited: int, running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    kernel = SimpleNamespace(
        OpenProcess=lambda access, inherited, pid: handle,
        WaitForSingleObject=lambda which, milliseconds: waited,
        CloseHandle=closed.append,
    )
    signals: list[tuple[int, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        patch.setattr(ctypes, "WinDLL", lambda name, **options: kernel, raising=False)
        patch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
        patch.setattr(os, "kill", lambda *call: signals.append(call))
        found = is_running(4321)
    assert (found, signals, closed) == (running, [], [handle] if handle else [])


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
