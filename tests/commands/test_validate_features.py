"""``validate`` holds records against their features, and tells all that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.data.feature_content import write_content
from tests.commands.lines import Captured, record
from tests.data.tea_videos import encode


@pytest.fixture
def tea(tmp_path: Path) -> Path:
    """Records of four videos of which each has a fault of its own, and of one that has none."""
    folder = tmp_path / "own/tea"
    (folder / "prepared").mkdir(parents=True)
    lines = [
        record(dataset="tea", video_uid=name, frames_file=f"frames/{name}.arrow")
        for name in ("good", "missing", "wide", "slow", "short", "missing")
    ]
    (folder / "prepared/train.jsonl").write_text("".join(lines))
    for name in ("good", "slow", "short"):
        fps, num_frames = 1.0 if name == "slow" else 2.0, 1 if name == "short" else 2
        encode(folder, name, num_frames=num_frames, fps=fps)
    write_content(folder / "features/eyes/wide.safetensors", {"cls": torch.zeros(2, 1, 6)}, {})
    return folder


def test_validate_lists_every_fault_of_the_features(tea: Path, capsys: Captured) -> None:
    file = tea / "prepared/train.jsonl"
    assert main(["validate", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: 6 records, no faults"
    assert lines[1] == "features of eyes: 4 faults"
    assert lines[2].startswith(f"{file}:2: feature file {tea}/features/eyes/missing.arrow does not")
    assert lines[3].startswith(f"{file}:4: has 2 frames a second, but ")
    assert lines[4].startswith(f"{file}:5: watches frames 0..1, but ")
    wide = f"features of {tea}/features/eyes/wide.safetensors are 6 wide, but "
    assert lines[5].startswith(f"{file}:3: {wide}")
    (tea / "features/other").mkdir()
    assert main(["validate", str(file), "--features", "eyes"]) == 1
    assert capsys.readouterr().out.splitlines()[1:6] == lines[1:6]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preprocessing": "processor"}, "preprocessing processor, there stretch"),
        ({"layer": -2}, "layer -2, there -1"),
        ({"encoder": "owl", "revision": "b"}, "encoder owl (b), there eyes (a)"),
        ({"encoder": "a/copy", "revision": "b" * 40}, ""),  # a hub's commit: nobody knows
        ({"encoder": "copy", "device": "cuda", "dtype": "float16", "decoder": "torchcodec"}, ""),
        ({"layer": None}, ""),  # nobody knows
    ],
)
def test_data_sets_that_are_not_encoded_alike_are_told(
    change: dict[str, object], said: str, tmp_path: Path, capsys: Captured
) -> None:
    how = {"encoder": "eyes", "revision": "a", "layer": -1, "preprocessing": "stretch"}
    files = []
    for name, further in (("tea", {}), ("coffee", change)):
        folder = tmp_path / "own" / name
        encode(folder, "v", num_frames=2, how=how | further)
        files.append(folder / "prepared/train.jsonl")
        files[-1].parent.mkdir()
        files[-1].write_text(record(dataset=name, frames_file="frames/v.arrow"))

    assert main(["validate", *map(str, files)]) == bool(said)

    out = capsys.readouterr().out
    paths = [f"{tmp_path}/own/{name}/features/eyes/v.safetensors" for name in ("coffee", "tea")]
    told = "{}:1: features of {} were made differently from those of {}: ".format(files[1], *paths)
    assert (f"{told}{said}; encode all videos alike.\n" in out) == bool(said)


def test_validate_asks_for_the_grids_of_the_tokens_that_are_named(
    tea: Path, capsys: Captured
) -> None:
    file = tea / "prepared/val.jsonl"
    file.write_text(record(dataset="tea", video_uid="wide", frames_file="frames/wide.arrow"))
    assert main(["validate", str(file)]) == 0
    assert "features of eyes: no faults\n" in capsys.readouterr().out
    assert main(["validate", str(file), "--tokens", "5"]) == 1
    assert "wide.safetensors has no grid '2x2'" in capsys.readouterr().out


def test_validate_says_which_features_it_did_not_look_at(
    tea: Path, tmp_path: Path, capsys: Captured
) -> None:
    alone, file = tmp_path / "alone.jsonl", tea / "prepared/train.jsonl"
    alone.write_text(record())
    (tea / "features/other").mkdir()
    assert main(["validate", str(alone), str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"features not checked: {alone}: no folder above it holds d/features"
    assert lines[3].endswith("tea/features holds eyes, other; name one by --features")
    assert main(["validate", str(file), "--features", "none"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "features: 1 fault"
    assert "no folder above it holds tea/features/none; encode" in lines[2]


def test_validate_lists_records_of_one_name_where_they_are_streamed(
    tmp_path: Path, capsys: Captured
) -> None:
    for name, code in (("train.jsonl", 0), ("dialog_val_L4096.jsonl", 1), ("interval.jsonl", 0)):
        file = tmp_path / name
        file.write_text(record() * 3)
        assert main(["validate", str(file)]) == code
        lines = capsys.readouterr().out.splitlines()
        assert sum("is named 'v_0_user', as" in line for line in lines) == 2 * code
