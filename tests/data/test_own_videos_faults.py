"""What ``proassist-lit prepare`` refuses, and what it tells of a spreadsheet or its videos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from proassist_lit.data.arrow_features import open_features
from proassist_lit.data.features import write_features
from proassist_lit.data.sources.own_videos import video_uid
from tests.data.tea_videos import SIX, Captured, encode, prepare, records, rows


def test_nothing_is_written_if_one_split_has_a_fault(folder: Path, capsys: Captured) -> None:
    text = "video,step,start,end,split\n" + "".join(
        f"v{i},Cut,1,2,{split}\n" for i, split in enumerate(["train", "val", "test"])
    )
    encode(folder, "v2", grids=())
    assert prepare(folder, text, "--task", "cook") == 2
    assert re.search(r"steps\.csv:4: 'num_tokens_per_img' ", capsys.readouterr().err)
    assert not (folder / "prepared").exists()


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (rows("v1", "v2", "w"), ["--task", "t"], r":8: video 'w' has no features in .*v0, v1"),
        (rows(*SIX), [], r":2: video 'v0' has no task; .*--task"),
        (rows("v0", "v1"), ["--task", "t"], r"2 videos cannot be shared out, with 1 each"),
        ("video,step,start,end\nv0,Cut,1,22\nv1,A,1,2\nv2,B,1,2\n", ["--task", "t"],
         r":2: ends at 22 s, but the last frame of the video is at 20 s"),
        ("video,step,start,end,said\nv0,Cut,1,2,\nv0,,30,,Hm\nv1,A,1,2,\nv2,B,1,2,\n",
         ["--task", "t"], r":3: has words at 30 s, but the last frame"),
        ("video,step,start,end,split\nv0,Cut,1,2,val\nv1,Cut,1,2,\n", ["--task", "t"],
         r":3: video 'v1' has no split, though others have"),
        ("video,step,start,end,split\nv0,Cut,1,2,val\nv1,Cut,1,2,val\n", ["--task", "t"],
         r"no video is of the split train or test"),
        (rows(*SIX), ["--task", "t", "--held-out", "0.5"], r"--held-out 0\.5: must be between"),
        (rows(*SIX), ["--task", "t", "--users", "loud"], r"--users loud: 'loud' is no kind"),
        (rows(*SIX), ["--task", "t", "--encoder", "ears"], r"--encoder ears: .* holds eyes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    text: str, options: list[str], said: str, folder: Path, capsys: Captured
) -> None:
    assert prepare(folder, text, *options) == 2
    told = capsys.readouterr().err
    assert re.search(f"^error: .*{said}", told), told
    assert not (folder / "prepared").exists()


def test_columns_that_mean_nothing_are_named(folder: Path, capsys: Captured) -> None:
    text = rows(*SIX).replace("end\n", "end,saids\n", 1)
    assert prepare(folder, text, "--task", "cook") == 0
    assert "steps.csv: columns left out: saids\n" in capsys.readouterr().err


def test_features_are_needed_first_and_of_one_encoder(folder: Path, capsys: Captured) -> None:
    encode(folder, "v0", encoder="ears")
    assert prepare(folder, rows(*SIX), "--task", "cook") == 2
    assert "--encoder is missing: " in capsys.readouterr().err
    assert prepare(folder, rows(*SIX), "--task", "cook", "--encoder", "eyes") == 0
    capsys.readouterr()
    assert prepare(folder.parent / "new", rows(*SIX), "--task", "cook") == 2
    assert re.search("new/features: holds no features; encode the videos", capsys.readouterr().err)


def test_features_that_do_not_say_how_they_were_made_are_refused(
    folder: Path, capsys: Captured
) -> None:
    path = folder / "features/eyes/v0.safetensors"
    write_features(path, {"cls": torch.zeros(41, 1, 4)}, fps=2, encoder="x", rendered=False)
    assert prepare(folder, rows(*SIX), "--task", "cook") == 2
    said = capsys.readouterr().err
    assert re.search(r"steps\.csv:2: .*v0\.safetensors does not say how many frames it", said)


def test_of_two_files_of_features_the_one_that_training_reads_counts(folder: Path) -> None:
    encode(folder, "v0", num_frames=31, suffix="arrow")
    assert prepare(folder, rows(*SIX), "--task", "cook") == 0
    made = [c for split in ("train", "val", "test") for c in records(folder, split)]
    assert {c.end_frame_idx for c in made if c.video_uid == "v0"} == {31}
    path = folder / "features/eyes/v0.arrow"
    assert open_features(path, ["cls"]).shape()[0] == 31


def test_two_videos_of_one_name_are_refused(folder: Path, capsys: Captured) -> None:
    for name in ("a/b", "a_b"):
        encode(folder, name)
    assert prepare(folder, rows("v1", "v2", "a/b", "a_b"), "--task", "cook") == 2
    assert ":11: videos 'a/b' and 'a_b' would both be called 'a_b'" in capsys.readouterr().err
    assert prepare(folder, rows("v1", "v2", "a/b"), "--task", "cook") == 0
    made = [c for split in ("train", "val", "test") for c in records(folder, split)]
    assert {c.frames_file for c in made if c.video_uid == video_uid("a/b")} == {"frames/a/b.arrow"}
