"""Arrow stream files, as the library ``datasets`` writes them: rows by window, by memory map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

END_OF_STREAM = b"\x00\x00\x00\x00"
"""How a finished stream ends; the writer of a file that ends otherwise did not get to its end."""


class ArrowStream:
    """The rows of an open stream file. Nothing but the rows asked for leaves the disk.

    Args:
        batches: its record batches, in order; they lie in the memory map.
        columns: names of its columns.
        metadata: what its schema says beside.
    """

    def __init__(
        self, batches: list[Any], columns: list[str], metadata: Mapping[bytes, bytes]
    ) -> None:
        self._batches, self.columns, self.metadata = batches, columns, metadata

    @property
    def num_rows(self) -> int:
        """Rows of the file: one a frame."""
        return sum(batch.num_rows for batch in self._batches)

    def column(self, name: str, start: int, end: int) -> list[Any]:
        """Rows ``start`` .. ``end - 1`` of a column, as one Arrow array a batch they lie in.

        Arrays of extension types are given as what they are stored as, so that it makes no
        difference whether ``datasets``, which registers such types, was imported.

        Raises:
            pyarrow.ArrowException: the rows are damaged.
        """
        parts, offset = [], 0
        for batch in self._batches:
            low, high = max(start - offset, 0), min(end - offset, batch.num_rows)
            offset += batch.num_rows
            if low < high:
                part = batch.column(self.columns.index(name)).slice(low, high - low)
                part = part.storage if isinstance(part, pa.ExtensionArray) else part
                part.validate(full=True)  # damaged offsets would be read as memory addresses
                parts.append(part)
        return parts


@contextmanager
def open_arrow(path: Path) -> Iterator[ArrowStream]:
    """Map a stream file into memory and find its batches, without reading them.

    Raises:
        pyarrow.ArrowException: it is no Arrow stream, or was cut off.
        OSError: it cannot be opened or mapped.
    """
    with pa.memory_map(str(path)) as file:
        size = file.size()
        if size < len(END_OF_STREAM) or file.read_at(4, size - 4) != END_OF_STREAM:
            raise pa.ArrowInvalid(f"its {size} bytes do not end as a finished Arrow stream does")
        try:
            with pa.ipc.open_stream(file) as reader:
                stream = ArrowStream(
                    list(reader), reader.schema.names, reader.schema.metadata or {}
                )
        except (ValueError, TypeError, KeyError) as error:
            # names that are not UTF-8, or an extension type whose owner cannot read its own notes
            raise pa.ArrowInvalid(str(error)) from error
        yield stream
