from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from proassist_lit.data.features import FeatureFile, write_features
from proassist_lit.errors import ConfigError, FeatureError, RecordError
from proassist_lit.vision.encoders import ThumbnailEncoder, build_encoder, grids_for


def grids() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"cls": 1, "2x2": 4}
    return {n: torch.randn(20, c, 8, generator=generator).half() for n, c in sizes.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "features" / "video.safetensors"
    write_features(path, grids(), fps=2.0, encoder="thumbnail16", rendered=True)
    return path


@pytest.mark.parametrize(("start", "end"), [(0, 20), (3, 4), (7, 15), (19, 20)])
def test_window_equals_the_slice(path: Path, start: int, end: int) -> None:
    window = FeatureFile(path, ("cls", "2x2")).read(start, end)

    whole = torch.cat([grids()["cls"], grids()["2x2"]], dim=1).float()
    assert torch.equal(window, whole[start:end])


def test_grids_are_joined_in_the_order_asked_for(path: Path) -> None:
    assert torch.equal(FeatureFile(path, ("2x2",)).read(0, 20), grids()["2x2"].float())
    assert FeatureFile(path, ("cls", "2x2")).shape() == (20, 5, 8)
    assert FeatureFile(path, ("cls",)).shape() == (20, 1, 8)


def test_writing_leaves_nothing_else_behind(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir()] == ["video.safetensors"]


@pytest.mark.parametrize(("start", "end"), [(0, 21), (-1, 3), (5, 5), (20, 21)])
def test_window_outside_names_record_file_and_remedy(path: Path, start: int, end: int) -> None:
    with pytest.raises(
        FeatureError,
        match=rf"val\.jsonl:3: asks for frames {start}\.\.{end - 1}, but .*video\.safetensors "
        r"holds frames 0\.\.19; correct start_frame_idx",
    ):
        FeatureFile(path, ("cls",)).read(start, end, where="val.jsonl:3")


def test_missing_file_names_record_file_and_remedy(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "no.safetensors", ("cls",))

    with pytest.raises(
        FeatureError, match=r"^val\.jsonl:3: .*no\.safetensors does not exist; encode the video"
    ):
        file.read(0, 1, where="val.jsonl:3")
    with pytest.raises(FeatureError, match=r"^feature file .*no\.safetensors does not exist"):
        file.shape()


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_damaged_file_says_to_encode_again(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(FeatureError, match=r"video\.safetensors is damaged .*delete it and encode"):
        FeatureFile(path, ("cls",)).read(0, 1)


def test_lacking_grid_names_those_that_are_there(path: Path) -> None:
    with pytest.raises(
        RecordError,
        match=r"^val\.jsonl:3: .*video\.safetensors has no grid '3x3', only 2x2, cls; .*num_tokens",
    ):
        FeatureFile(path, ("cls", "3x3")).read(0, 1, where="val.jsonl:3")


def check_refused(path: Path, reason: str) -> None:
    """Its shape and its frames, both with a message that says ``reason``."""
    file = FeatureFile(path, ("cls", "2x2"))
    message = rf"^a:1: feature file .*video\.safetensors: {reason}"
    for ask in (lambda: file.shape(where="a:1"), lambda: file.read(0, 1, where="a:1")):
        with pytest.raises(FeatureError, match=message):
            ask()


@pytest.mark.parametrize("shape", [(20, 9, 8), (20, 3, 8), (20, 8)])
def test_a_grid_of_other_cells_than_its_name_says_is_refused(
    shape: tuple[int, ...], path: Path
) -> None:
    odd = grids() | {"2x2": torch.zeros(shape).half()}
    write_features(path, odd, fps=2.0, encoder="thumbnail16", rendered=True)
    check_refused(
        path,
        rf"grid '2x2' is {re.escape(str(shape))}, expected \(frames, 4, width\); "
        "encode the video again",
    )


def test_grids_of_different_widths_are_refused(path: Path) -> None:
    odd = grids() | {"2x2": torch.zeros(20, 4, 9).half()}
    write_features(path, odd, fps=2.0, encoder="thumbnail16", rendered=True)
    check_refused(path, "the grids are of different widths: cls 8, 2x2 9; encode the video again")
    assert FeatureFile(path, ("2x2",)).shape() == (20, 4, 9)


# -- the weight-free encoder ------------------------------------------------------------------


def pictures(height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


def cell_means(picture: np.ndarray, side: int, size: int) -> np.ndarray:
    """(side * side, size * size * 3), by plain loops."""
    height, width = picture.shape[0] // (side * size), picture.shape[1] // (side * size)
    rows = []
    for row in range(side):
        for col in range(side):
            cell = [
                picture[
                    (row * size + y) * height : (row * size + y + 1) * height,
                    (col * size + x) * width : (col * size + x + 1) * width,
                ].mean((0, 1))
                for y in range(size)
                for x in range(size)
            ]
            rows.append(np.concatenate(cell))
    return np.array(rows) / 64 - 2


@pytest.mark.parametrize("size", [4, 16])
def test_thumbnails_are_plain_means_row_by_row(size: int) -> None:
    frames = pictures()
    encoded = ThumbnailEncoder(size).encode(frames, ("cls", "2x2"))

    assert encoded["cls"].shape == (3, 1, size * size * 3)
    assert encoded["2x2"].shape == (3, 4, size * size * 3)
    for grid, side in (("cls", 1), ("2x2", 2)):
        for index, picture in enumerate(frames):
            want = cell_means(picture, side, size)
            np.testing.assert_allclose(encoded[grid][index], want, atol=2e-3)  # float16


def test_thumbnails_of_sizes_that_do_not_divide_average_what_they_touch() -> None:
    frames = pictures(10, 7)
    got = ThumbnailEncoder(4).encode(frames, ("cls",))["cls"][0, 0].reshape(4, 4, 3)

    # rows 2.5 to 5 of 10 touch pixels 2, 3, 4; columns 1.75 to 3.5 of 7 touch 1, 2, 3
    want = frames[0, 2:5, 1:4].mean((0, 1)) / 64 - 2
    np.testing.assert_allclose(got[1, 1], want, atol=2e-3)


def test_nine_cells_of_a_picture_are_in_reading_order() -> None:
    frames = np.zeros((1, 66, 66, 3), np.uint8)
    frames[0, 22:44, 44:] = 255  # the middle row's last cell
    cells = ThumbnailEncoder(2).encode(frames, ("3x3",))["3x3"][0]

    assert [int(cell.mean() > 0) for cell in cells] == [0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_encoders_and_grids_are_found_by_name() -> None:
    encoder = build_encoder("thumbnail24")
    assert (encoder.name, encoder.width) == ("thumbnail24", 24 * 24 * 3)
    assert [grids_for(k) for k in (1, 5, 10)] == [("cls",), ("cls", "2x2"), ("cls", "3x3")]
    assert grids_for(26) == ("cls", "5x5")
    for name in ("thumbnail", "thumbnail1", "thumbnail999", "siglip"):
        with pytest.raises(ConfigError, match=rf"data\.encoder is '{name}'; known are"):
            build_encoder(name)
    with pytest.raises(ConfigError, match=r"num_tokens_per_img is 4; choose one of 1, 5, 10, 26 "):
        grids_for(4)
