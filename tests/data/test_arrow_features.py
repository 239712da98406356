from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from datasets import Array2D, Features
from datasets.arrow_writer import ArrowWriter
from torch import Tensor

from proassist_lit.data.arrow_features import ArrowFeatureFile, open_features
from proassist_lit.data.features import FeatureFile, write_features
from proassist_lit.errors import FeatureError
from proassist_lit.vision.encoders import grids_for

CELLS = {"cls": 1, "2x2": 4, "3x3": 9, "5x5": 25}
NUM_FRAMES, WIDTH = 20, 6


def grids(num_frames: int = NUM_FRAMES, width: int = WIDTH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(num_frames, c, width, generator=generator).half() for n, c in CELLS.items()
    }


def write(path: Path, values: dict[str, Tensor], *, declared: bool = False, batch: int = 7) -> Path:
    """As ProAssist's extraction does it: one row a frame, tensors of half precision.

    Without ``declared`` the columns are lists of lists, as in the released files; with it they
    have the extension type of ``datasets``.
    """
    features = None
    if declared:
        shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}
        features = Features({n: Array2D(shape, "float16") for n, shape in shapes.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrowWriter(path=str(path), features=features, writer_batch_size=batch)
    for i in range(len(next(iter(values.values())))):
        row = {name: value[i] for name, value in values.items()}
        writer.write({n: v.numpy() for n, v in row.items()} if declared else row)
    writer.finalize()
    return path


@pytest.fixture(params=[False, True], ids=["lists", "Array2D"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "video.arrow", grids(), declared=request.param)


# windows within one batch of seven rows, over several, and of all
@pytest.mark.parametrize(("start", "end"), [(0, 20), (0, 1), (6, 8), (8, 13), (3, 16), (19, 20)])
@pytest.mark.parametrize("num_tokens", [1, 5, 10, 26])
def test_window_equals_the_slice(path: Path, start: int, end: int, num_tokens: int) -> None:
    names = grids_for(num_tokens)
    window = ArrowFeatureFile(path, names).read(start, end)

    whole = torch.cat([grids()[name] for name in names], dim=1).float()
    assert window.dtype == torch.float32
    assert window.shape == (end - start, num_tokens, WIDTH)
    assert torch.equal(window, whole[start:end])


def test_arrow_and_safetensors_give_the_same(path: Path) -> None:
    ours = path.with_suffix(".safetensors")
    write_features(ours, grids(), fps=2.0, encoder="e", rendered=False)
    readers = [reader(file, ("cls", "3x3")) for reader, file in
               ((ArrowFeatureFile, path), (FeatureFile, ours))]  # fmt: skip

    assert readers[0].shape() == readers[1].shape() == (20, 10, WIDTH)
    assert torch.equal(readers[0].read(4, 9), readers[1].read(4, 9))


def test_rows_without_a_dimension_of_cells_are_one_cell(tmp_path: Path) -> None:
    values = grids()["cls"]
    path = write(tmp_path / "v.arrow", {"cls": values[:, 0]})
    assert ArrowFeatureFile(path, ("cls",)).shape() == (20, 1, WIDTH)
    assert torch.equal(ArrowFeatureFile(path, ("cls",)).read(5, 12), values[5:12].float())


def test_reading_a_window_does_not_load_the_video(tmp_path: Path) -> None:
    path = write(tmp_path / "long.arrow", {"cls": torch.zeros(400, 1, 4096).half()}, batch=100)
    assert path.stat().st_size > 3_000_000
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        ArrowFeatureFile(path, ("cls",)).read(150, 152)
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < 100_000  # a batch alone holds 800 kB


@pytest.mark.parametrize(("start", "end"), [(0, 21), (-1, 3), (5, 5), (20, 21)])
def test_window_outside_names_record_file_and_remedy(path: Path, start: int, end: int) -> None:
    with pytest.raises(
        FeatureError,
        match=rf"^val\.jsonl:3: asks for frames {start}\.\.{end - 1}, but .*video\.arrow holds "
        r"frames 0\.\.19; correct start_frame_idx",
    ):
        ArrowFeatureFile(path, ("cls",)).read(start, end, where="val.jsonl:3")


def test_missing_file_names_record_file_and_remedy(tmp_path: Path) -> None:
    file = ArrowFeatureFile(tmp_path / "no.arrow", ("cls",))
    with pytest.raises(FeatureError, match=r"^val\.jsonl:3: .*no\.arrow does not exist; encode"):
        file.read(0, 1, where="val.jsonl:3")
    with pytest.raises(FeatureError, match=r"^feature file .*no\.arrow does not exist"):
        file.shape()


def test_lacking_grid_names_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "v.arrow", {n: v for n, v in grids().items() if n != "3x3"})
    with pytest.raises(
        FeatureError, match=r"^a:1: .*v\.arrow has no grid '3x3', only 2x2, 5x5, cls; .*num_tokens_"
    ):
        ArrowFeatureFile(path, ("cls", "3x3")).read(0, 1, where="a:1")


@pytest.mark.parametrize("keep", [0, 2, 8, 300, 3000, -1, -4, -100])
def test_file_cut_off_says_to_encode_again(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        FeatureError, match=r"^a:1: feature file .*video\.arrow is damaged \(.*\); delete it and en"
    ):
        ArrowFeatureFile(path, ("cls",)).read(0, 1, where="a:1")


def test_file_cut_off_between_two_batches_is_no_shorter_video(tmp_path: Path) -> None:
    whole = write(tmp_path / "v.arrow", grids(), batch=10)
    ends = [
        i for i in range(len(whole.read_bytes())) if whole.read_bytes()[i : i + 4] == b"\xff" * 4
    ]
    whole.write_bytes(whole.read_bytes()[: ends[-2]])  # before the head of the second batch
    with pytest.raises(FeatureError, match=r"is damaged \(its \d+ bytes do not end as a finished"):
        ArrowFeatureFile(whole, ("cls",)).read(0, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pa.array([[[1.0, 2.0]], [[1.0]]]), r"the frames of 'cls' are of different shapes"),
        (pa.array([[[1.0, 2.0]], None]), r"the frames of 'cls' are of different shapes"),
        (pa.array([[[1.0, None]], [[1.0, 2.0]]]), r"'cls' holds 2 levels of double"),
        (pa.array([[[]], [[]]], pa.list_(pa.list_(pa.float16()))), r"different shapes, or empty"),
        (pa.array([[[1]], [[2]]]), r"'cls' holds 2 levels of int64, not \(cells, E\) floats"),
        (pa.array([1.0, 2.0]), r"'cls' holds 0 levels of double"),
        (pa.array(["x", "y"]), r"'cls' holds 0 levels of string"),
        (pa.array([], pa.list_(pa.list_(pa.float16()))), r"it holds no frames"),
    ],
)
def test_columns_that_are_no_features_are_refused(
    rows: pa.Array, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "v.arrow"
    table = pa.table({"cls": rows})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(FeatureError, match=rf"v\.arrow is damaged \(.*{message}.*\); delete"):
        ArrowFeatureFile(path, ("cls",)).read(0, 2)


def test_grids_of_different_widths_are_refused(tmp_path: Path) -> None:
    values = {"cls": grids()["cls"], "2x2": grids(width=5)["2x2"]}
    path = write(tmp_path / "v.arrow", values)
    file = ArrowFeatureFile(path, ("cls", "2x2"))
    for ask in (lambda: file.shape(where="a:1"), lambda: file.read(0, 2, where="a:1")):
        with pytest.raises(
            FeatureError,
            match=r"^a:1: feature file .*v\.arrow: the grids are of different widths: cls 6, 2x2",
        ):
            ask()


def test_a_grid_of_other_cells_than_its_name_says_is_refused(tmp_path: Path) -> None:
    file = ArrowFeatureFile(write(tmp_path / "v.arrow", {"3x3": grids()["2x2"]}), ("3x3",))
    for ask in (lambda: file.shape(where="a:1"), lambda: file.read(0, 2, where="a:1")):
        with pytest.raises(
            FeatureError, match=r"^a:1: feature file .*v\.arrow: grid '3x3' is \(\d, 4, 6\), expec"
        ):
            ask()


def test_damaged_bytes_are_read_or_refused_by_name(path: Path) -> None:
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for place in torch.randint(0, min(1400, len(good)), (300,), generator=generator).tolist():
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        message = ""
        try:
            window = ArrowFeatureFile(path, ("cls", "2x2")).read(2, 9)
        except FeatureError as error:
            message = str(error)
        if message:
            refused += 1
            assert "video.arrow" in message
            assert "\n" not in message
        else:
            assert window.shape == (7, 5, WIDTH)
    assert refused > 100


def test_open_features_takes_what_lies_on_the_disk(tmp_path: Path) -> None:
    arrow, ours = tmp_path / "a.b.arrow", tmp_path / "a.b.safetensors"
    for asked in (arrow, ours):  # nothing there: the one asked for is missing
        with pytest.raises(FeatureError, match=rf"a\.b\{asked.suffix} does not exist"):
            open_features(asked, ("cls",)).shape()
    write_features(ours, {"cls": torch.zeros(3, 1, 2)}, fps=2.0, encoder="e", rendered=False)
    assert [open_features(asked, ("cls",)).shape() for asked in (arrow, ours)] == [(3, 1, 2)] * 2
    write(arrow, {"cls": torch.ones(4, 1, 2).half()})
    assert [open_features(asked, ("cls",)).shape() for asked in (arrow, ours)] == [(4, 1, 2)] * 2
    ours.unlink()
    assert open_features(ours, ("cls",)).path == arrow
