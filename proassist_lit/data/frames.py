"""Pictures of a video in ProAssist's layout: one Arrow stream of base64 JPEGs, read by window."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from proassist_lit.data.arrow_stream import open_arrow
from proassist_lit.data.git_lfs import is_pointer, pointer_fault
from proassist_lit.errors import FeatureError

COLUMN = "frame"
"""The column that holds the pictures, a row a frame."""


def read_frames(
    path: Path, indices: Sequence[int], *, max_side: int | None = None, where: str = ""
) -> NDArray[np.uint8] | None:
    """Read some frames of a video; the others are neither loaded nor decoded.

    Args:
        path: ``frames/X.arrow``.
        indices: which frames, absolute in the video, in any order; at least one.
        max_side: longest side of the pictures given back, pixels; larger ones are shrunk in
            proportion. None leaves them as they are.
        where: record that asks, for the message.

    Returns:
        (len(indices), H, W, 3) uint8 RGB; None if there is no such file.

    Raises:
        FeatureError: the file is damaged, too short, has no such column, or holds pictures that
            cannot be decoded or are of different sizes.
    """
    if not path.exists():
        return None
    asked = f"{where}: " if where else ""
    try:
        with open_arrow(path) as stream:
            if stream.columns.count(COLUMN) != 1:
                raise FeatureError(
                    f"{asked}frame file {path} has no column {COLUMN!r}, only "
                    f"{', '.join(map(ascii, sorted(stream.columns))) or 'none'}; name a file of "
                    "base64 JPEG frames, or remove it to do without pictures."
                )
            if not (indices and 0 <= min(indices) <= max(indices) < stream.num_rows):
                wanted = f"{min(indices)}..{max(indices)}" if indices else "none at all"
                raise FeatureError(
                    f"{asked}asks for frames {wanted}, but {path} holds frames 0.."
                    f"{stream.num_rows - 1}; correct the record, or extract the whole video."
                )
            texts = [stream.column(COLUMN, i, i + 1)[0][0].as_py() for i in indices]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if is_pointer(path):
            raise FeatureError(f"{asked}frame file {pointer_fault(path)}.") from error
        reason = str(error).strip().split("\n")[0][:200]
        raise FeatureError(
            f"{asked}frame file {path} is damaged ({reason}); delete it and extract the frames "
            "again."
        ) from error
    pictures = []
    for index, text in zip(indices, texts, strict=True):
        pictures.append(_decode(text, max_side, f"{asked}frame {index} of {path}"))
        if pictures[-1].shape != pictures[0].shape:
            raise FeatureError(
                f"{asked}frame {index} of {path} is {_size(pictures[-1])} pixels, but frame "
                f"{indices[0]} is {_size(pictures[0])}; extract the frames again, in one size."
            )
    return np.stack(pictures)


def _decode(text: object, max_side: int | None, where: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of one base64 JPEG."""
    try:
        if not isinstance(text, str | bytes):
            raise ValueError(f"a {type(text).__name__}, not base64 text")
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            if max_side is not None:
                picture.thumbnail((max_side, max_side))  # decodes a JPEG at the smaller size
            return np.array(picture.convert("RGB"), dtype=np.uint8)
    except (
        ValueError,  # not base64, too
        OSError,
        SyntaxError,  # what Pillow raises for some broken headers
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise FeatureError(
            f"{where} is no picture ({str(error)[:100]}); extract the frames again."
        ) from error


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
