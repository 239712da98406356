"""Writes feature files, ours and ProAssist's: the same bytes for the same content, always."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from proassist_lit.atomic import replacing

NOTES_KEY = b"proassist_lit"
"""Key of the notes in the schema of an Arrow file, as JSON."""

_BATCH_FRAMES = 1000
"""Frames of a record batch: what ``datasets`` writes."""


def write_safetensors(path: Path, grids: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a feature file of ours, atomically.

    Args:
        path: the file; its folder is made if need be.
        grids: (F, cells, E) floating tensor for each grid name.
        notes: what else the file says of itself.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        tensors = {name: cells.contiguous() for name, cells in grids.items()}
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, str(temporary), metadata=dict(notes))
        except SafetensorError as error:  # how the library tells that the disk is full
            raise OSError(str(error)) from error
        temporary.chmod(mode)  # the library's is for its owner alone
        _sort_header(temporary)


def write_arrow(path: Path, grids: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a feature file as ProAssist's extraction does, atomically; arguments as above.

    One row a frame, one column a grid, lists of lists of floats; ``datasets`` reads it. The notes
    are kept in the schema, where others do not look.
    """
    schema = _schema(grids, notes)
    num_frames = min(len(cells) for cells in grids.values())
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for start in range(0, num_frames, _BATCH_FRAMES):
            columns = [_lists(cells[start : start + _BATCH_FRAMES]) for cells in grids.values()]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _sort_header(path: Path) -> None:
    """Put the notes in the header of a safetensors file in order: the library's is random."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the same content in another order"
        file.seek(8)
        file.write(text.ljust(size))


def _schema(grids: Mapping[str, Tensor], notes: Mapping[str, str]) -> Any:
    """The schema that ``datasets`` would write, and the notes."""
    from datasets import Features, List, Value

    kinds = {name: str(cells.numpy().dtype) for name, cells in grids.items()}
    features = Features({name: List(List(Value(kind))) for name, kind in kinds.items()})
    schema = features.arrow_schema
    metadata = {**schema.metadata}
    if notes:
        metadata[NOTES_KEY] = json.dumps(dict(sorted(notes.items())), ensure_ascii=False).encode()
    return schema.with_metadata(metadata)


def _lists(cells: Tensor) -> Any:
    """An Arrow array of (F, cells, E) floats, a list of lists a row."""
    values = cells.contiguous().numpy()
    num_frames, num_cells, width = values.shape
    vectors = pa.ListArray.from_arrays(
        pa.array(range(0, values.size + 1, width), pa.int32()), pa.array(values.reshape(-1))
    )
    rows = pa.array(range(0, num_frames * num_cells + 1, num_cells), pa.int32())
    return pa.ListArray.from_arrays(rows, vectors)
