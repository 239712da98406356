from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from proassist_lit.data.arrow_features import ArrowFeatureFile, open_features
from proassist_lit.data.feature_content import read_content, read_notes, write_content
from proassist_lit.data.features import write_features
from proassist_lit.encoding.convert import Conversion, convert, find_conversions
from proassist_lit.errors import ConfigError, FeatureError
from tests.data.test_arrow_features import grids, write


def odd_bits(num_frames: int = 2345) -> dict[str, Tensor]:
    """Every float16 there is, infinities and numbers that are none included; several batches."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    values = every.repeat(2)[: num_frames * 5 * 3].reshape(num_frames, 5, 3)
    return {"cls": values[:, :1], "2x2": values[:, 1:]}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, cells in one.items():
        assert cells.dtype == two[name].dtype
        kind = {2: torch.int16, 4: torch.int32}[cells.element_size()]
        assert torch.equal(cells.contiguous().view(kind), two[name].contiguous().view(kind)), name


def to(path: Path, suffix: str) -> Conversion:
    return Conversion(path, path.parent / "new" / f"{path.stem}.{suffix}")


def test_ours_there_and_back_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    write_features(path, odd_bits(), fps=2.0, encoder="möbel", rendered=True)
    there = to(path, "arrow")
    assert convert(there, fps=7.0)
    back = to(there.target, "safetensors")
    assert convert(back, fps=7.0)
    assert back.target.read_bytes() == path.read_bytes()
    same(read_content(there.target)[0], read_content(path)[0])


@pytest.mark.parametrize("declared", [False, True])
def test_proassists_there_and_back_has_the_same_rows(declared: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "enc/v.arrow", grids(), declared=declared)
    there = to(path, "safetensors")
    convert(there, fps=2.0)
    assert read_notes(there.target) == {"fps": "2.0", "encoder": "enc", "rendered": "false"}
    back = to(there.target, "arrow")
    convert(back, fps=7.0)
    for file in (there.target, back.target):
        same(read_content(file)[0], read_content(path)[0])
        reader = open_features(file, ("cls", "3x3"))
        assert torch.equal(reader.read(3, 9), ArrowFeatureFile(path, ("cls", "3x3")).read(3, 9))


def test_other_floats_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    write_content(path, {"cls": torch.randn(4, 1, 3), "2x2": torch.randn(4, 4, 3).half()}, {})
    convert(to(path, "arrow"), fps=2.0)
    same(read_content(to(path, "arrow").target)[0], read_content(path)[0])


def test_datasets_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_content(path, {"cls": odd_bits(3)["cls"].nan_to_num()}, {"note": "ä"})
    rows = Dataset.from_file(str(path))
    assert rows.num_rows == 3
    assert torch.tensor(rows[2]["cls"]).half().shape == (1, 3)
    assert read_notes(path) == {"note": "ä"}


def test_every_writing_gives_the_same_bytes(tmp_path: Path) -> None:
    notes = {letter: letter for letter in "hgfedcba"}
    for name in ("a.safetensors", "b.safetensors", "a.arrow", "b.arrow"):
        write_content(tmp_path / name, grids(), notes)
        assert read_notes(tmp_path / name) == notes
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask()
    for suffix in ("safetensors", "arrow"):
        one, two = ((tmp_path / f"{letter}.{suffix}").read_bytes() for letter in "ab")
        assert one == two
    text = (tmp_path / "a.safetensors").read_bytes()
    assert [text.index(f'"{letter}":"{letter}"'.encode()) for letter in "abcdefgh"] == sorted(
        text.index(f'"{letter}":"{letter}"'.encode()) for letter in "abcdefgh"
    )


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_done_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", grids())
    conversion = to(path, "safetensors")
    assert convert(conversion, fps=2.0)
    before = conversion.target.stat().st_mtime_ns
    assert not convert(conversion, fps=2.0)
    assert conversion.target.stat().st_mtime_ns == before
    later = before + 10**9
    os.utime(path, ns=(later, later))
    assert convert(conversion, fps=2.0)


def test_a_source_with_an_older_date_and_other_content_is_converted(tmp_path: Path) -> None:
    """As one that was made anew elsewhere and brought here with its date."""
    path = write(tmp_path / "v.arrow", grids())
    conversion = to(path, "safetensors")
    assert convert(conversion, fps=2.0)
    write(path, grids(num_frames=3))
    os.utime(path, ns=(10**18, 10**18))
    assert convert(conversion, fps=2.0)
    same(read_content(conversion.target)[0], read_content(path)[0])
    assert not convert(conversion, fps=2.0)


@pytest.mark.parametrize("kept_ns", [1_923_456_700, 1_920_000_000, 1_000_000_000, 0])
def test_dates_that_are_kept_coarsely_are_enough(kept_ns: int, tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", grids())
    os.utime(path, ns=(10**18 + 1_923_456_789,) * 2)
    conversion = to(path, "safetensors")
    assert convert(conversion, fps=2.0)
    os.utime(conversion.target, ns=(10**18 + kept_ns,) * 2)  # as a file system would have it
    assert not convert(conversion, fps=2.0)
    os.utime(path, ns=(10**18 + 2_000_000_000,) * 2)
    assert convert(conversion, fps=2.0)


def test_folders_are_searched(tmp_path: Path) -> None:
    for name in ("a/v.arrow", "w.arrow", "x.safetensors", ".y.arrow"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    out = tmp_path / "out"
    assert find_conversions(tmp_path / "in", out, "safetensors") == [
        Conversion(tmp_path / "in/a/v.arrow", out / "a/v.safetensors"),
        Conversion(tmp_path / "in/w.arrow", out / "w.safetensors"),
    ]
    assert find_conversions(tmp_path / "in/x.safetensors", out, "arrow") == [
        Conversion(tmp_path / "in/x.safetensors", out / "x.arrow")
    ]
    for source in ("in/x.safetensors", "in/gone.arrow", "out"):
        with pytest.raises(ConfigError, match=rf"{source}: holds no \.arrow file to convert to sa"):
            find_conversions(tmp_path / source, out, "safetensors")


@pytest.mark.parametrize("suffix", ["safetensors", "arrow"])
def test_both_formats_of_a_video_in_one_folder_are_refused(suffix: str, tmp_path: Path) -> None:
    other = {"arrow": "safetensors", "safetensors": "arrow"}[suffix]
    path = tmp_path / f"in/deep/v.{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    match = rf"deep/v\.{suffix}: .* before \.safetensors; .*another folder"
    for source, out in ((tmp_path / "in", tmp_path / "in"), (path, path.parent)):
        with pytest.raises(ConfigError, match=match):
            find_conversions(source, out, other)
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / f"out/deep/v.{suffix}").touch()
    with pytest.raises(ConfigError, match=match):
        find_conversions(tmp_path / "in", tmp_path / "out", other)
    assert find_conversions(tmp_path / "in", tmp_path / "new", other)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"cls": torch.zeros(2, 1, 3), "2x2": torch.zeros(3, 4, 3)}, "of different lengths .*enc"),
        ({"2x2": torch.zeros(2, 3, 3)}, r"grid '2x2' has 3 cells; encode the video again"),
        ({"cls": torch.zeros(2, 1, 3).bfloat16()}, "is bfloat16, which Arrow cannot hold; encode"),
        ({"cls": torch.zeros(2, 3)}, r"'cls' is of shape \(2, 3\) and type torch.float32, not"),
        ({"cls": torch.zeros(2, 1, 3).int()}, r"type torch.int32, not .*; name a feature file"),
    ],
)
def test_what_is_no_feature_file_is_refused(
    content: dict[str, Tensor], match: str, tmp_path: Path
) -> None:
    path = tmp_path / "v.safetensors"
    write_content(path, content, {})
    with pytest.raises(FeatureError, match=rf"v\.safetensors: .*{match}"):
        convert(to(path, "arrow"), fps=2.0)
    assert not to(path, "arrow").target.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "arrow"])
def test_damaged_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path, other = tmp_path / f"v.{suffix}", {"arrow": "safetensors", "safetensors": "arrow"}[suffix]
    write_content(path, grids(), {})
    path.write_bytes(path.read_bytes()[:-9])
    for work in (lambda: convert(to(path, other), fps=2.0), lambda: read_notes(path)):
        with pytest.raises(FeatureError, match=rf"feature file .*v\.{suffix} is damaged .*delete"):
            work()
    path.unlink()
    for read in (read_notes, read_content):
        with pytest.raises(FeatureError, match=rf"v\.{suffix} does not exist; encode the video"):
            read(path)


def test_empty_arrow_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_content(path, {"cls": torch.zeros(0, 1, 3)}, {})
    with pytest.raises(FeatureError, match=r"v\.arrow is damaged \(it holds no frames\)"):
        convert(to(path, "safetensors"), fps=2.0)


def test_full_disk_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", grids())
    (tmp_path / "new").write_text("in the way")
    with pytest.raises(FeatureError, match=r"new/v\.safetensors: cannot be written .*make room"):
        convert(to(path, "safetensors"), fps=2.0)
