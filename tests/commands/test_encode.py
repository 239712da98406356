"""``proassist-lit encode`` and ``convert``, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from proassist_lit.commands.main import main
from proassist_lit.data.feature_content import read_content
from proassist_lit.encoding.jobs import Job
from proassist_lit.encoding.progress import EncodingProgress
from proassist_lit.errors import ConfigError
from proassist_lit.vision import encoders
from proassist_lit.vision.network import NetworkOptions
from proassist_lit.vision.video_file import VideoFile
from tests.vision.clips import make_clip, make_sound
from tests.vision.fake_torchcodec import install, uninstall

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for i in range(3):
        make_clip(tmp_path / f"videos/v{i}.mp4", range(0, 1000 * (i + 1), 100))
    return tmp_path / "videos"


def encode(videos: Path, out: Path, *options: str) -> int:
    return main(["encode", str(videos), "--encoder", "thumbnail4", "--out", str(out), *options])


def test_encode_says_what_it_does(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert encode(videos, out) == 0
    said = capsys.readouterr()
    assert said.out == f"encoded 3 videos, 12 frames, into {out}\n"
    lines = sorted(line.partition(" ")[2] for line in said.err.splitlines())
    assert lines == [f"{videos}/v{i}.mp4: {2 * (i + 1)} frames" for i in range(3)]
    assert encode(videos, out) == 0
    assert capsys.readouterr().out.endswith("; 3 were done before\n")
    grids, _ = read_content(out / "v2.safetensors")
    assert {name: tuple(cells.shape) for name, cells in grids.items()} == {
        "cls": (6, 1, 48), "2x2": (6, 4, 48),
    }  # fmt: skip


def test_bad_videos_end_in_a_list(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    make_sound(videos / "a.mp4")
    (videos / "b.mp4").touch()
    assert encode(videos, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "encoded 3 videos, 12 frames" in said.out
    listed = said.err.partition("2 of 5 videos were not encoded:\n")[2].splitlines()
    assert sorted(listed) == [
        f"  {videos}/a.mp4: holds no video, only audio; name the file with the pictures.",
        f"  {videos}/b.mp4: is empty (0 bytes); copy or record it again.",
    ]


def test_a_tag_that_is_not_utf8_stops_nothing(
    videos: Path, tmp_path: Path, capsys: Captured
) -> None:
    odd = make_clip(videos / "odd.avi", range(10), codec="mpeg4", title="xxxx",
                    time_base=Fraction(1, 10))  # fmt: skip
    assert odd.read_bytes().count(b"xxxx") == 1
    odd.write_bytes(odd.read_bytes().replace(b"xxxx", b"\xe9\xe9\xe9\xe9"))
    assert encode(videos, tmp_path / "out") == 0
    assert "encoded 4 videos, 14 frames" in capsys.readouterr().out


def test_a_video_that_ends_in_any_error_stops_no_other(
    videos: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = VideoFile.__init__

    def failing(self: VideoFile, path: Path, *args: Any, **options: Any) -> None:
        if path.name == "v1.mp4":
            raise RuntimeError("what is this?")
        opened(self, path, *args, **options)

    monkeypatch.setattr(VideoFile, "__init__", failing)
    assert encode(videos, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "encoded 2 videos, 8 frames" in said.out
    assert "v1.mp4: cannot be decoded (RuntimeError: what is this?)" in said.err


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_counts_only_what_is_left(
    is_terminal: bool, videos: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert encode(videos, tmp_path / "out") == 0
    make_clip(videos / "v3.mp4", range(0, 500, 100))
    totals = []
    shown = EncodingProgress.__init__

    def watched(self: EncodingProgress, expected: Mapping[Job, int], num_videos: int) -> None:
        totals.append((sorted(job.video.name for job in expected), num_videos))
        shown(self, expected, num_videos)

    monkeypatch.setattr(EncodingProgress, "__init__", watched)
    monkeypatch.setattr(Console, "is_terminal", is_terminal)
    capsys.readouterr()
    assert encode(videos, tmp_path / "out") == 0
    said = capsys.readouterr()
    # nobody sees a total where there is no terminal, and headers of thousands of videos take long
    assert totals == [(["v3.mp4"] if is_terminal else [], 1)]
    assert is_terminal or said.err == f"1/1 {videos}/v3.mp4: 1 frames\n"
    assert said.out == f"encoded 1 videos, 1 frames, into {tmp_path}/out; 3 were done before\n"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["2x2", "cls"]),
        (["--tokens", "10"], ["3x3", "cls"]),
        (["--grids", "5x5,2x2"], ["2x2", "5x5"]),
    ],
)
def test_grids_are_chosen(
    options: list[str], names: list[str], videos: Path, tmp_path: Path
) -> None:
    assert encode(videos, tmp_path / "out", *options, "--format", "arrow") == 0
    assert sorted(read_content(tmp_path / "out/v0.arrow")[0]) == names


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--grids", "cls,4x4"], "--grids cls,4x4: '4x4' is no grid; name some of cls,2x2,3x3,5x5"),
        (["--tokens", "3"], "--tokens 3: choose one of 1, 5, 10, 26."),
        (["--fps", "0"], "--fps must be above 0, got 0.0; 2 is usual."),
        (["--shard", "5/5"], "--shard 5/5: give i/n with i from 0 to n - 1"),
        (["--device", "toaster"], "--device toaster: cannot be used"),
        (["--layer", "-2"], "encoder thumbnail4: has one layer"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], error: str, videos: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert encode(videos, tmp_path / "out", *options) == 2
    assert f"error: {error}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to_is_told(
    videos: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/x"):
        assert encode(videos, out) == 2
        assert f"error: --out {out}: cannot be written to (" in capsys.readouterr().err


def test_a_video_that_is_not_there_claims_no_folder(
    videos: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert encode(videos / "nope.mp4", tmp_path / "out") == 2
    assert "nope.mp4: there is no such video or folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--batch", "--workers"])
def test_counts_are_counts(option: str, videos: Path, tmp_path: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        encode(videos, tmp_path / "out", option, "0")
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def test_other_encoder_is_refused(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    assert encode(videos, tmp_path / "out") == 0
    before = (tmp_path / "out/v0.safetensors").read_bytes()
    assert encode(videos, tmp_path / "out", "--encoder", "thumbnail5") == 2
    assert "were made differently: encoder thumbnail4, now thumbnail5" in capsys.readouterr().err
    assert (tmp_path / "out/v0.safetensors").read_bytes() == before


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_of_all_kinds_give_the_same_files(
    videos: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode(videos, tmp_path / "whole") == 0
    for shard in ("0/2", "1/2"):
        assert encode(videos, tmp_path / "parts", "--shard", shard) == 0
    assert "part 1 of 2, from 0 (--shard): 1 of 3 videos\n" in capsys.readouterr().out
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert encode(videos, tmp_path / "ranks") == 0
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    for task in "12":
        for name, value in (("ID", task), ("MIN", "1"), ("STEP", "1"), ("COUNT", "2")):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        assert encode(videos, tmp_path / "array") == 0
    assert "part 1 of 2, from 0 (Slurm array): 1 of 3 videos\n" in capsys.readouterr().out
    for name in ("parts", "ranks", "array"):
        assert files(tmp_path / name) == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({}, "cuda"),
        ({"LOCAL_RANK": "5"}, "cuda:1"),
        ({"SLURM_LOCALID": "3"}, "cuda:3"),
        ({"LOCAL_RANK": "2", "SLURM_LOCALID": "0"}, "cuda:2"),  # srun starts one torchrun
    ],
)
def test_each_process_of_a_machine_takes_a_gpu_of_its_own(
    environment: dict[str, str], device: str, videos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked: list[str] = []

    def load(name: str, options: NetworkOptions) -> None:
        asked.append(str(options.device))
        raise ConfigError("that is all")

    monkeypatch.setattr(encoders, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(encoders, "load_encoder", load)
    assert encode(videos, tmp_path / "out") == 2
    assert asked == [device]


def test_damaged_video_is_kept_if_asked(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    cut = make_clip(videos / "v0.mp4", range(0, 4000, 40), faststart=True)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 4 // 5])
    assert encode(videos, tmp_path / "out") == 1
    assert "encode --keep-damaged" in capsys.readouterr().err
    assert encode(videos, tmp_path / "out", "--keep-damaged") == 0
    assert (tmp_path / "out/v0.safetensors").exists()


def test_another_decoder_is_noted_and_not_mixed_with_the_usual_one(
    videos: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode(videos, tmp_path / "pyav") == 0
    assert "decoder" not in json.loads((tmp_path / "pyav/manifest.json").read_text())
    fake = install(monkeypatch)
    assert encode(videos, tmp_path / "out", "--decoder", "torchcodec") == 0
    assert [options["device"] for options in fake.made] == ["cpu"] * 3
    assert json.loads((tmp_path / "out/manifest.json").read_text())["decoder"] == "torchcodec"
    assert encode(videos, tmp_path / "out", "--decoder", "torchcodec") == 0
    assert "3 were done before" in capsys.readouterr().out
    for i in range(3):
        one, two = (read_content(tmp_path / d / f"v{i}.safetensors")[0] for d in ("pyav", "out"))
        assert all(torch.equal(one[grid], two[grid]) for grid in ("cls", "2x2"))
    for folder, made_by, now in (("out", "torchcodec", "pyav"), ("pyav", "pyav", "torchcodec")):
        assert encode(videos, tmp_path / folder, "--decoder", now) == 2
        assert f"decoder {made_by}, now {now}" in capsys.readouterr().err


def test_a_decoder_that_is_not_installed_is_told_before_the_folder_is_made(
    videos: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(monkeypatch, ImportError("No module named 'torchcodec'"))
    assert encode(videos, tmp_path / "out", "--decoder", "torchcodec") == 2
    assert "error: --decoder torchcodec: it cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_convert_says_what_it_does(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    assert encode(videos, tmp_path / "out") == 0
    (tmp_path / "out/bad.safetensors").write_bytes(b"bad")
    capsys.readouterr()
    command = ["convert", str(tmp_path / "out"), str(tmp_path / "arrow"), "--to", "arrow"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out == f"converted 3 files into {tmp_path / 'arrow'}\n"
    assert "1 of 4 files were not converted:\n  feature file" in said.err
    assert main(command) == 1
    assert "converted 0 files" in (text := capsys.readouterr().out)
    assert text.endswith("; 3 were done before\n")
    (tmp_path / "out/bad.safetensors").unlink()

    back = ["convert", str(tmp_path / "arrow"), str(tmp_path / "back"), "--to", "safetensors"]
    assert main(back) == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["encoder"] == "thumbnail4"
    (tmp_path / "out/manifest.json").unlink()
    assert files(tmp_path / "back") == files(tmp_path / "out")


def test_convert_refuses_what_is_wrong(tmp_path: Path, capsys: Captured) -> None:
    command = ["convert", str(tmp_path), str(tmp_path / "new"), "--to", "arrow"]
    assert main(command) == 2
    assert "holds no .safetensors file to convert to arrow" in capsys.readouterr().err
    assert main([*command, "--fps", "-1"]) == 2
    assert "--fps must be above 0" in capsys.readouterr().err
