from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from proassist_lit.data.frames import read_frames
from proassist_lit.errors import FeatureError


def picture(i: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A plain picture whose colour tells its index; JPEG keeps plain colours."""
    return Image.new("RGB", size, (10 * i, 250 - 10 * i, 40))


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    return base64.b64encode(buffer.getvalue()).decode()


def write(path: Path, texts: list, column: str = "frame") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrowWriter(path=str(path), writer_batch_size=7)
    for text in texts:
        writer.write({column: text})
    writer.finalize()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "frames/v.arrow", [encoded(picture(i)) for i in range(20)])


@pytest.mark.parametrize("indices", [[0], [3, 4, 5, 6, 7, 8], [19, 0, 13], [2, 2], range(20)])
def test_frames_are_those_asked_for_in_order(path: Path, indices: list[int]) -> None:
    got = read_frames(path, list(indices))
    assert got is not None
    assert (got.shape, got.dtype) == ((len(indices), 32, 48, 3), np.uint8)
    want = np.stack([np.array(picture(i)) for i in indices])
    assert np.abs(got.astype(int) - want).max() <= 3


def test_frames_are_shrunk_in_proportion(path: Path) -> None:
    got = read_frames(path, [0, 5], max_side=24)
    assert got is not None
    assert got.shape == (2, 16, 24, 3)
    assert abs(int(got[1, 8, 8, 0]) - 50) <= 3
    larger = read_frames(path, [0], max_side=100)
    assert larger is not None
    assert larger.shape == (1, 32, 48, 3)


def test_grey_pictures_get_three_channels(tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", [encoded(Image.new("L", (8, 8), 77))])
    got = read_frames(path, [0])
    assert got is not None
    assert got.shape == (1, 8, 8, 3)
    assert np.abs(got.astype(int) - 77).max() <= 2


def test_no_file_is_no_fault(tmp_path: Path) -> None:
    assert read_frames(tmp_path / "v.arrow", [0]) is None


@pytest.mark.parametrize(
    ("indices", "wanted"), [([0, 20], "0..20"), ([-1], "-1..-1"), ([], "none")]
)
def test_frames_outside_name_record_file_and_remedy(path: Path, indices: list, wanted: str) -> None:
    with pytest.raises(
        FeatureError,
        match=rf"^a\.jsonl:4: asks for frames {wanted}.*, but .*v\.arrow holds frames 0\.\.19; ",
    ):
        read_frames(path, indices, where="a.jsonl:4")


def test_file_cut_off_or_without_pictures_is_refused(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.arrow", ["x"], column="image")
    with pytest.raises(FeatureError, match=r"other\.arrow has no column 'frame', only 'image'; na"):
        read_frames(other, [0])
    whole = path.read_bytes()
    for keep in (0, 100, 4000, -1):
        path.write_bytes(whole[:keep])
        with pytest.raises(
            FeatureError, match=r"^a:1: frame file .*v\.arrow is damaged \(.*delete"
        ):
            read_frames(path, [0], where="a:1")


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        base64.b64encode(b"no picture").decode(),
        encoded(picture(1))[:400],
        encoded(picture(1))[:40] + "!" + encoded(picture(1))[40:],  # no sign of base64
        "",
        None,
    ],
)
def test_a_row_that_is_no_picture_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    table = pa.table({"frame": pa.array([encoded(picture(0)), text], pa.string())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    assert read_frames(path, [0]) is not None
    with pytest.raises(FeatureError, match=r"^a:1: frame 1 of .*v\.arrow is no picture \(.*extrac"):
        read_frames(path, [0, 1], where="a:1")


def test_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", [encoded(picture(0)), encoded(picture(1, (32, 32)))])
    with pytest.raises(
        FeatureError, match=r"frame 1 of .* is 32 x 32 pixels, but frame 0 is 48 x 32; extract"
    ):
        read_frames(path, [0, 1])
